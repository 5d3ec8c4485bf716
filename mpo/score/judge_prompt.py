"""What an LLM judge reads: a prompt that is filled with a conversation and responses in plain words. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from mpo.errors import ConfigError
from mpo.types import Message

NO_TEXT = "(no text)"
_FIELD = re.compile(r"\{([a-z_]+)\}")


def check_prompt(prompt: str, fields: Collection[str]) -> None:
    """Raise ConfigError unless ``prompt`` has every one of ``fields`` in braces, and no other: what a judge is not
    shown it cannot judge, and an option that is not in the prompt would have no effect."""
    found = set(_FIELD.findall(prompt))
    for name in fields:
        if name not in found:
            raise ConfigError(f"has no {{{name}}}", "score.prompt", f"put {{{name}}} where it belongs")
    for name in sorted(found - set(fields)):
        known = ", ".join(f"{{{each}}}" for each in fields)
        raise ConfigError(f"has {{{name}}}, which nothing fills", "score.prompt", f"leave it out; there are {known}")


def fill_prompt(prompt: str, values: Mapping[str, str]) -> str:
    """``prompt`` with each field's value; braces within a value stay as they are."""
    return _FIELD.sub(lambda found: values[found.group(1)], prompt)


def conversation_text(turns: Sequence[Message], tools: str | None) -> str:
    """All turns, each under its role, after the tools (JSON) that the assistant may call."""
    parts = [] if tools is None else [f"Tools that the assistant may call (JSON):\n{tools}"]
    return "\n\n".join([*parts, *map(_turn, turns)])


def response_text(response: Message) -> str:
    """A response: its text alone where it has nothing else, otherwise reasoning, text and tool calls, each named."""
    return response.content or NO_TEXT if response.is_plain else _turn(response)


def _turn(turn: Message) -> str:
    who = turn.role.capitalize()
    said_of_it = [*([turn.name] if turn.name else []), *([f"call {turn.tool_call_id}"] if turn.tool_call_id else [])]
    if said_of_it:
        who += f" ({', '.join(said_of_it)})"
    parts = [f"{who}, thinking:\n{turn.reasoning}"] if turn.reasoning else []
    if turn.content or not turn.texts:
        parts.append(f"{who}:\n{turn.content or NO_TEXT}")
    if turn.tool_calls:
        parts.append(f"{who}, calling tools (JSON):\n{turn.tool_calls}")
    return "\n\n".join(parts)
