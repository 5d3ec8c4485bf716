"""What a chat template leaves out or changes of a set, found by rendering it again without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import jinja2

from mpo.data.chat import prompt_text, response_body
from mpo.data.problems import Problem, Reason, Severity
from mpo.types import Message, Response, ResponseSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def left_out_of_prompt(tokenizer: PreTrainedTokenizerBase, one: ResponseSet, before: str) -> Iterator[Problem]:
    """Problems of the rendered prompt ``before``: errors where the conversation is another without what is left out
    (tool turns and calls), else warnings."""

    def ignored(turns: Sequence[Message], tools: str | None = one.tools) -> bool:
        return _same(before, lambda: prompt_text(tokenizer, turns, tools))

    if one.tools is not None and ignored(one.prompt, None):
        yield _ignores(one, "tools", "the tools", "warning")
    roles: tuple[tuple[str, Severity], ...] = (("system", "warning"), ("tool", "error"))
    for role, severity in roles:
        unseen = any(turn.role == role and turn.content.strip() not in before for turn in one.prompt)
        if unseen and ignored([replace(turn, content="") if turn.role == role else turn for turn in one.prompt]):
            yield _ignores(one, f"{role} turns", f"{role} turns", severity)
    if all(turn.is_plain for turn in one.prompt):
        return
    without: list[tuple[str, list[Message], Severity]] = [
        ("tool_calls", [replace(turn, tool_calls=None) for turn in one.prompt], "error"),
        ("reasoning of earlier turns", [replace(turn, reasoning=None) for turn in one.prompt], "warning"),
        ("name", [turn if turn.role == "tool" else replace(turn, name=None) for turn in one.prompt], "warning"),
    ]
    for field, turns, severity in without:
        if tuple(turns) != one.prompt and ignored(turns):
            yield _ignores(one, field, f"the prompt's {field}", severity)


def left_out_of_response(
    tokenizer: PreTrainedTokenizerBase, one: ResponseSet, index: int, before: str, body: str
) -> Iterator[Problem]:
    """Problems of response ``index``, rendered as ``body``: an error where nothing of what it says is left."""
    response = one.responses[index]

    def ignored(other: Response) -> bool:
        return _same(body, lambda: response_body(tokenizer, one.prompt, other, one.tools, before))

    if response.tool_calls is not None and ignored(replace(response, tool_calls=None)):
        yield _ignores(one, "tool_calls", f"tool calls of response {index}", "error")
    if response.reasoning is not None and ignored(replace(response, reasoning=None)):
        severity: Severity = "warning" if response.text.strip() else "error"
        yield _ignores(one, "reasoning", f"reasoning of response {index}", severity)
    if response.text.strip() not in body:
        message = f"the chat template leaves out or changes words of response {index}; it is trained as rendered"
        yield Problem(f"set {one.id}", one.id, Reason.TEMPLATE_CHANGES, message, "warning")


def _same(rendered: str, again: Callable[[], str]) -> bool:
    try:
        return again() == rendered
    except jinja2.TemplateError:  # the template asks for what was taken away
        return False


def _ignores(one: ResponseSet, field: str, what: str, severity: Severity) -> Problem:
    message = f"the chat template leaves out {what}; name one that has them: model.chat_template"
    return Problem(f"set {one.id}", one.id, Reason.TEMPLATE_IGNORES, message, severity, field)
