"""Judges behind servers of OpenAI's chat API. No torch."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mpo.endpoint import Endpoint, RefusedRequest, in_parallel
from mpo.errors import ConfigError, DataError, cut
from mpo.score.chat import Answer, Chat, Refused
from mpo.types import Message

SHOWN = 100


class ServedChat(Chat):
    """Servers of one model, asked in turn, many requests at once.

    Args:
        ends: what to connect to; closed with this.
        model: name under which they serve it.
        concurrency: requests to a server at once.

    Raises:
        ConfigError: a server does not serve ``model``.
        ProcessError: one cannot be reached.
    """

    def __init__(self, ends: Sequence[Endpoint], model: str, concurrency: int) -> None:
        with contextlib.ExitStack() as stack:
            for end in ends:
                stack.enter_context(end)
            self._turn = itertools.cycle({end: _served(end, model) for end in ends}.items())
            self._workers = stack.enter_context(ThreadPoolExecutor(concurrency * len(ends)))
            self._stack = stack.pop_all()

    def answers(
        self, conversations: Sequence[Sequence[Message]], most_tokens: int, top_logprobs: int
    ) -> Iterator[tuple[int, Answer | Refused]]:
        """See :meth:`Chat.answers`; raises ProcessError for a server that fails over and over."""
        logprobs = {"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {}
        calls = []
        for turns in conversations:
            end, model = next(self._turn)
            body = {"model": model, "temperature": 0.0, "max_tokens": most_tokens, **logprobs}
            messages = [{"role": turn.role, "content": turn.content} for turn in turns]
            calls.append(functools.partial(_answer, end, {**body, "messages": messages}))
        yield from in_parallel(self._workers, calls)

    def close(self) -> None:
        """Close the connections."""
        self._stack.close()


def _served(end: Endpoint, model: str) -> str:
    cards = end.cards()
    for card in cards:
        if model in (card.get("id"), card.get("root")):
            return str(card["id"])
    named = ", ".join(str(card.get("id")) for card in cards) or "no model"
    raise ConfigError(f"{end.url} serves {cut(named, SHOWN)}, not {model}", "score.model", "name one that it serves")


def _answer(end: Endpoint, body: dict[str, Any]) -> Answer | Refused:
    try:
        answer = end.post("chat/completions", body)
    except RefusedRequest as error:
        return Refused(error)
    try:
        (choice,) = answer["choices"]
        said = choice["message"]["content"] or ""
        tokens = [
            {**each, "token": str(each["token"]), "logprob": float(each["logprob"])}
            for each in (choice.get("logprobs") or {}).get("content") or []
        ]
        return Answer(str(said), tokens, str(choice.get("finish_reason")))
    except (KeyError, TypeError, ValueError, AttributeError):
        what = f"{end.url} answered what is no answer of the chat API: {cut(str(answer), SHOWN)}"
        raise DataError(what, "score.urls", "name a server of OpenAI's chat API") from None
