"""Drawn tokens as responses with text, and counts of what they are like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpo.data.chat import special_tokens
from mpo.sample.base import Drawn
from mpo.types import Response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Texts:
    """Turns drawn tokens into text.

    Attributes:
        lost: responses by a special token inside them, which the text is without.
        responses: how many it has seen; among them ``cut`` off by the limit of tokens, ``empty`` ones, and those
            ``equal`` to an earlier one of their set.
    """

    tokenizer: PreTrainedTokenizerBase
    lost: Counter[str] = field(default_factory=Counter)
    responses: int = 0
    cut: int = 0
    empty: int = 0
    equal: int = 0
    characters: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        self._special = special_tokens(self.tokenizer)

    def text(self, one: Drawn) -> str:
        """The response's text, without special tokens."""
        inner = one.token_ids[:-1] if one.finished else one.token_ids
        text: str = self.tokenizer.decode(inner, skip_special_tokens=True)
        return text

    def responses_of(self, drawn: Sequence[Drawn]) -> tuple[Response, ...]:
        """The responses to one prompt, counted."""
        responses = tuple(map(self._response, drawn))
        texts = [each.text.strip() for each in responses]
        self.responses += len(responses)
        self.cut += sum(not each.finished for each in responses)
        self.empty += texts.count("")
        self.equal += len(texts) - len(set(texts))
        self.characters += sum(len(each.text) for each in responses)
        self.tokens += sum(len(one.token_ids) for one in drawn)
        return responses

    def _response(self, one: Drawn) -> Response:
        found = set(one.token_ids[:-1] if one.finished else one.token_ids)
        inside = next((name for name, index in self._special.items() if index in found), None)
        if inside is not None:
            self.lost[inside] += 1
        logps = None if one.token_logps is None else tuple(one.token_logps)
        return Response(self.text(one), finished=one.finished, token_ids=tuple(one.token_ids), token_logps=logps)

    @property
    def facts(self) -> dict[str, Any]:
        """For the stage's summary."""
        return {
            "responses": self.responses,
            "tokens": self.tokens,
            "with_special_tokens": self.lost.total(),
            "cut_at_limit": self.cut,
            "empty": self.empty,
            "equal_texts": self.equal,
            "mean_characters": self.characters / max(self.responses, 1),
        }
