"""Judges with the options of their YAML files, and servers that answer as judges."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import yaml

from mpo.config.paths import folder
from mpo.config.targets import build
from mpo.score import Item, Scorer
from mpo.score.judge import Judge
from mpo.types import Message
from tests.unit.sample.loopback import Answer, Loopback

MODELS = {"data": [{"id": "other"}, {"id": "judge", "root": "owner/judge"}]}
QUESTION = (Message("user", "Name a use of a brick."),)
J = TypeVar("J", bound=Judge)


def options(kind: str, *servers: Loopback, **others: Any) -> dict[str, Any]:
    """The node of ``conf/score/KIND.yaml`` with these servers."""
    node = yaml.safe_load((folder("conf") / "score" / f"{kind}.yaml").read_text())
    urls = [server.url for server in servers] or ["http://localhost:8000/v1"]
    return {**node, "urls": urls, "model": "judge", "attempts": 3, "timeout_s": 5.0, **others}


def judge(kind: str, *servers: Loopback, **others: Any) -> Scorer:
    return build(options(kind, *servers, **others), Scorer, (), "score")  # type: ignore[type-abstract]


def item(text: str) -> Item:
    return Item(QUESTION, Message("assistant", text))


def says(text: str | None, *tokens: dict[str, Any], ended: str = "stop") -> Answer:
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": ended}
    return 200, {"choices": [{**choice, **({"logprobs": {"content": list(tokens)}} if tokens else {})}]}


def answering(answer: Callable[[Any], Answer]) -> Callable[[str, Any], Answer]:
    """A server of the judge, whose answer to a question's body is ``answer``'s."""
    return lambda path, body: (200, MODELS) if path == "models" else answer(body)


def part(body: Any, title: str) -> str:
    """What stands under a title of the shipped prompts."""
    found = re.search(rf"===== {title} =====\n(.*?)\n\n=====", body["messages"][0]["content"], re.DOTALL)
    assert found is not None
    return found.group(1)
