"""Records that every floor shares. No torch, no numpy: importable from the command line's fast path."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a prompt.

    ``score`` is a reward on any scale (larger is better), ``accepted`` the data's own mark where it has one,
    ``model`` who wrote it. ``finished`` is False where sampling hit its limit: such a text has no end of turn.
    """

    text: str
    score: float | None = None
    model: str | None = None
    accepted: bool | None = None
    finished: bool = True


@dataclass(frozen=True, slots=True)
class ResponseSet:
    """A prompt (one or several turns, ending with the user's) and its K responses."""

    id: str
    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
