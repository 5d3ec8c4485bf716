"""Drawn tokens as responses with text, and counts of what they are like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpo.config.schema import ThinkingConfig
from mpo.data.chat import special_tokens
from mpo.data.thoughts import USUAL_END, Parted, Thoughts
from mpo.sample.base import Drawn
from mpo.types import Response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Texts:
    """Turns drawn tokens into text, parted into thought and answer where ``thinking`` has marks.

    Attributes:
        lost: responses by a special token inside them, which the text is without.
        responses: how many it has seen; among them ``cut`` off by the limit of tokens, ``empty`` ones, and those
            ``equal`` to an earlier one of their set. One without an answer is empty, equal ones have equal thoughts.
        thoughts: responses with a thought; of ``unended`` thoughts there is no answer.
        without_thoughts: responses to prompts that end with the closing mark, as templates have it for thinking off.
        unparted: responses with a thought that is part of their text, for want of marks.
    """

    tokenizer: PreTrainedTokenizerBase
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)
    lost: Counter[str] = field(default_factory=Counter)
    responses: int = 0
    cut: int = 0
    empty: int = 0
    equal: int = 0
    thoughts: int = 0
    unended: int = 0
    without_thoughts: int = 0
    unparted: int = 0
    characters: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        start, end = self.thinking.start, self.thinking.end
        self._thoughts = None if start is None or end is None else Thoughts(self.tokenizer, start, end)
        self._usual_end = None if self._thoughts else self.tokenizer.added_tokens_encoder.get(USUAL_END)
        marks = self._thoughts.mark_ids if self._thoughts else ()
        self._special = {name: i for name, i in special_tokens(self.tokenizer).items() if i not in marks}

    def response(self, one: Drawn, prompt_ids: Sequence[int]) -> Response:
        """The response to a rendered prompt, its text without special tokens."""
        return _response(one, self._parted(one, prompt_ids))

    def responses_of(self, drawn: Sequence[Drawn], prompt_ids: Sequence[int]) -> tuple[Response, ...]:
        """The responses to one prompt, counted."""
        parted = [self._parted(one, prompt_ids) for one in drawn]
        said = [(each.thought, each.answer.strip()) for each in parted]
        self.responses += len(parted)
        self.cut += sum(not one.finished for one in drawn)
        self.empty += sum(not answer for _, answer in said)
        self.equal += len(said) - len(set(said))
        self.thoughts += sum(each.thought is not None for each in parted)
        self.unended += sum(not each.ended for each in parted)
        if self._thoughts is not None and self._thoughts.closed(prompt_ids):
            self.without_thoughts += len(parted)
        self.characters += sum(len(each.answer) for each in parted)
        self.tokens += sum(len(one.token_ids) for one in drawn)
        for one in drawn:
            found = set(_inner(one))
            inside = next((name for name, index in self._special.items() if index in found), None)
            if inside is not None:
                self.lost[inside] += 1
            self.unparted += self._usual_end in found
        return tuple(map(_response, drawn, parted))

    def _parted(self, one: Drawn, prompt_ids: Sequence[int]) -> Parted:
        if self._thoughts is not None:
            return self._thoughts.parted(_inner(one), prompt_ids)
        return Parted(self.tokenizer.decode(_inner(one), skip_special_tokens=True))

    @property
    def facts(self) -> dict[str, Any]:
        """For the stage's summary."""
        parted = {} if self._thoughts is None else {"thoughts": self.thoughts, "unended_thoughts": self.unended}
        return {
            "responses": self.responses,
            "tokens": self.tokens,
            "with_special_tokens": self.lost.total(),
            "cut_at_limit": self.cut,
            "empty": self.empty,
            "equal_texts": self.equal,
            **parted,
            "mean_characters": self.characters / max(self.responses, 1),
        }


def _inner(one: Drawn) -> Sequence[int]:
    return one.token_ids[:-1] if one.finished else one.token_ids


def _response(one: Drawn, parted: Parted) -> Response:
    logps = None if one.token_logps is None else tuple(one.token_logps)
    return Response(
        parted.answer,
        finished=one.finished,
        reasoning=parted.thought,
        token_ids=tuple(one.token_ids),
        token_logps=logps,
    )
