"""Records that every floor shares. No torch, no numpy: importable from the command line's fast path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OWN_SCORE = "data"
"""Name of the score that the data came with, beside those of scorers."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; ``role`` is ``system``, ``user``, ``assistant`` or ``tool``.

    ``reasoning``: what an assistant thought before its ``content``. ``tool_calls``: JSON text of a list of calls.
    ``tool_call_id``: the call that a ``tool`` turn answers. ``name``: who speaks, or the tool's name.
    """

    role: str
    content: str
    reasoning: str | None = None
    tool_calls: str | None = None
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it has a role and a content only."""
        return self.reasoning is self.tool_calls is self.tool_call_id is self.name is None

    @property
    def texts(self) -> tuple[str, ...]:
        """What it says: content, reasoning, tool calls, those that it has."""
        return tuple(each for each in (self.content, self.reasoning, self.tool_calls) if each)


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a prompt.

    ``score`` is the data's own reward on any scale (larger is better), ``scores`` are those of scorers by their name.
    ``accepted`` is the data's own mark where it has one, ``model`` who wrote it. ``finished`` is False where sampling
    hit its limit: such a text has no end of turn. ``reasoning`` and ``tool_calls`` are those of :class:`Message`.

    ``token_ids``: where a sampler drew it, its tokens as drawn; the last is the stop token that ended it, if it is
    finished. ``token_logps``: their log-probs in nats under the policy that drew them, at temperature 1 and without a
    top-p cut, as float32 holds them.
    """

    text: str
    score: float | None = None
    model: str | None = None
    accepted: bool | None = None
    finished: bool = True
    reasoning: str | None = None
    tool_calls: str | None = None
    token_ids: tuple[int, ...] | None = None
    token_logps: tuple[float, ...] | None = None
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)

    def score_by(self, name: str) -> float | None:
        """The score of this name, ``OWN_SCORE`` for the data's own; None where there is none."""
        return self.score if name == OWN_SCORE else self.scores.get(name)

    @property
    def score_names(self) -> list[str]:
        """Names of the scores that it has."""
        return [*([] if self.score is None else [OWN_SCORE]), *self.scores]

    @property
    def message(self) -> Message:
        """The response as the assistant's turn."""
        return Message("assistant", self.text, self.reasoning, self.tool_calls)


@dataclass(frozen=True, slots=True)
class ResponseSet:
    """A prompt (one or several turns, ending with the user's or a tool's) and its K responses.

    ``tools``: JSON text of the list of tool schemas that the assistant may call.
    """

    id: str
    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    tools: str | None = None
