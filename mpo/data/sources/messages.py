"""Messages of a row: roles, texts, content parts, reasoning, tool calls; what is not read is refused or counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mpo.data.problems import Reason, RowError
from mpo.data.sources.fields import Row, Warn, kind, text
from mpo.types import Message

ROLES = ("system", "user", "assistant", "tool")
SAME_ROLE = {"developer": "system"}
"""Other names of a role: OpenAI's newer models call a system turn so."""
FOLLOWS = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}
ORDER = "want [system,] user, assistant, …, user; tool turns follow the assistant's"
REASONING = ("reasoning_content", "reasoning", "thinking")
"""The names under which data and chat templates have what an assistant thinks before it answers."""
ANSWER = frozenset({"tool_calls", *REASONING})
READ = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", *REASONING})
HARMLESS = frozenset(
    {"id", "index", "turn", "turn_id", "uuid", "hash", "timestamp", "created", "created_at", "date", "model", "source",
     "language", "metadata"}
)  # fmt: skip
"""Fields beside a text that say where it comes from."""
MEDIA = frozenset({"audio", "image", "images", "video", "videos"})


def messages(value: object, name: str, warn: Warn) -> tuple[Message, ...]:
    """``[{role, content, …}, …]`` as messages; raises ``RowError`` (bad_message) for any other shape."""
    if not isinstance(value, list | tuple):
        raise RowError(Reason.BAD_MESSAGE, f"{name} is {kind(value)}, not a list of messages")
    return tuple(_message(turn, f"{name}[{index}]", warn) for index, turn in enumerate(value))


def prompt(value: object, name: str, warn: Warn) -> tuple[Message, ...]:
    """A prompt given as text (one user turn) or as messages, unchecked."""
    if isinstance(value, str):
        return (Message("user", text(value, name, Reason.PROMPT_NOT_TEXT)),)
    if isinstance(value, list | tuple):
        return messages(value, name, warn)
    raise RowError(Reason.PROMPT_NOT_TEXT, f"{name} is {kind(value)}, neither text nor a list of messages")


def checked_prompt(turns: Sequence[Message]) -> None:
    """Raise ``RowError`` unless ``turns`` are a prompt: [system,] user, assistant, …, user, the last one not empty."""
    if not turns:
        raise RowError(Reason.EMPTY_PROMPT, "the prompt has no messages")
    roles = [turn.role for turn in (turns[1:] if turns[0].role == "system" else turns)]
    ordered = roles[:1] == ["user"] and all(after in FOLLOWS.get(role, ()) for role, after in zip(roles, roles[1:]))  # noqa: B905
    if not ordered or roles[-1] not in ("user", "tool"):
        shown = ", ".join(turn.role for turn in turns)
        raise RowError(Reason.BAD_ROLE_ORDER, f"the prompt has roles {shown}; {ORDER}")
    if roles[-1] == "user" and not turns[-1].content.strip():
        raise RowError(Reason.EMPTY_PROMPT, "the last user turn of the prompt is empty")


def conversation(value: object, name: str, warn: Warn) -> tuple[tuple[Message, ...], Message]:
    """Messages that end with the assistant's: the turns before (unchecked) and the last one."""
    turns = messages(value, name, warn)
    if not turns or turns[-1].role != "assistant":
        raise RowError(Reason.BAD_ROLE_ORDER, f"{name} does not end with an assistant turn")
    for key in ("name", "tool_call_id"):  # a prompt's turn has them, a response doesn't
        if getattr(turns[-1], key) is not None:
            warn(Reason.UNUSED_FIELD, f"{name}[{len(turns) - 1}].{key} is not used", key)
    return turns[:-1], turns[-1]


def answer_parts(row: Row, where: str) -> tuple[str | None, str | None]:
    """Reasoning and tool calls of an assistant's turn or of a response, None where it has none."""
    if ANSWER.isdisjoint(row):
        return None, None
    found = {row[key] for key in REASONING if isinstance(row.get(key), str) and row[key].strip()}
    for key in REASONING:
        if row.get(key) is not None:
            text(row[key], f"{where}.{key}", Reason.BAD_MESSAGE)
    if len(found) > 1:
        raise RowError(
            Reason.BAD_MESSAGE, f"{where} has {' and '.join(k for k in REASONING if row.get(k))}, which differ"
        )
    return next(iter(found), None), _tool_calls(row.get("tool_calls"), f"{where}.tool_calls")


def content(value: object, where: str, warn: Warn) -> str:
    """A text, or the texts of a list of parts, joined; raises ``RowError`` for parts of another kind."""
    if not isinstance(value, list | tuple):
        return text(value, where, Reason.BAD_MESSAGE)
    return "".join(_part(part, f"{where}[{index}]", warn) for index, part in enumerate(value))


def warn_unused(row: Row, known: frozenset[str], where: str, warn: Warn) -> None:
    """Count every field of a message, part or response that has a value and is not in ``known``."""
    if known.issuperset(row):
        return
    for key, value in row.items():
        if key in known or key in HARMLESS or value in (None, "", [], {}):
            continue
        if key in MEDIA or key == "function_call":
            remedy = "write tool_calls" if key == "function_call" else "only text is read"
            raise RowError(Reason.BAD_MESSAGE, f"{where} has '{key}'; {remedy}")
        warn(Reason.UNUSED_FIELD, f"{where}.{key} is not used", key)


def json_list(value: object, where: str, reason: Reason) -> list[Mapping[str, Any]] | None:
    """A list of objects, given as such or as JSON text; None for an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise RowError(reason, f"{where} is text that is not JSON") from None
    if value is None or value in ([], ()):
        return None
    if not isinstance(value, list | tuple):
        raise RowError(reason, f"{where} is {kind(value)}, not a list of objects")
    for index, each in enumerate(value):
        if not isinstance(each, Mapping):
            raise RowError(reason, f"{where}[{index}] is {kind(each)}, not an object")
    return list(value)


def json_text(value: object, where: str, reason: Reason) -> str:
    """``value`` as JSON text; raises ``RowError`` for what JSON cannot hold."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RowError(reason, f"{where} cannot be written as JSON: {error}") from None
    return text(written, where, reason)


def _message(turn: object, where: str, warn: Warn) -> Message:
    if not isinstance(turn, Mapping) or "role" not in turn:
        raise RowError(Reason.BAD_MESSAGE, f"{where} is not an object with role and content")
    role = SAME_ROLE.get(turn["role"], turn["role"]) if isinstance(turn["role"], str) else turn["role"]
    if role not in ROLES:
        raise RowError(Reason.BAD_MESSAGE, f"{where} has role {str(role)[:80]!r}, not one of {', '.join(ROLES)}")
    reasoning, calls = answer_parts(turn, where)
    if role != "assistant" and (reasoning or calls):
        raise RowError(Reason.BAD_MESSAGE, f"{where} has reasoning or tool calls, but is a {role} turn")
    if turn.get("content") is None and not (reasoning or calls):
        raise RowError(Reason.BAD_MESSAGE, f"{where} has no content")
    warn_unused(turn, READ, where, warn)
    said = turn.get("content")
    if role == "tool" and isinstance(said, Mapping):  # what the tool returned, not yet written as text
        said = json_text(said, f"{where}.content", Reason.BAD_MESSAGE)
    body = "" if said is None else content(said, f"{where}.content", warn)
    call_id, name = turn.get("tool_call_id"), turn.get("name")
    if isinstance(call_id, int) and not isinstance(call_id, bool):
        call_id = str(call_id)
    named = [
        None if value is None else text(value, f"{where}.{key}", Reason.BAD_MESSAGE) or None
        for key, value in (("tool_call_id", call_id), ("name", name))
    ]
    return Message(role, body, reasoning, calls, *named)


def _part(part: object, where: str, warn: Warn) -> str:
    if isinstance(part, str):
        return text(part, where, Reason.BAD_MESSAGE)
    if not isinstance(part, Mapping):
        raise RowError(Reason.BAD_MESSAGE, f"{where} is {kind(part)}, not a part of type text")
    if part.get("type", "text") != "text":
        raise RowError(Reason.BAD_MESSAGE, f"{where} is of type {str(part['type'])[:80]!r}; only text is read")
    warn_unused(part, frozenset({"type", "text"}), where, warn)
    return text(part.get("text"), f"{where}.text", Reason.BAD_MESSAGE)


def _tool_calls(value: object, where: str) -> str | None:
    """Calls as JSON text; arguments that are JSON text are read, as servers do before they render a template."""
    calls = json_list(value, where, Reason.BAD_MESSAGE)
    if calls is None:
        return None
    whole = []
    for index, call in enumerate(calls):
        inner = call.get("function", call)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise RowError(Reason.BAD_MESSAGE, f"{where}[{index}] names no function")
        read = {**inner, **({"arguments": _arguments(inner["arguments"])} if "arguments" in inner else {})}
        whole.append({**call, "function": read} if "function" in call else read)
    return json_text(whole, where, Reason.BAD_MESSAGE)


def _arguments(value: object) -> object:
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return parsed if isinstance(parsed, dict) else value
    return value
