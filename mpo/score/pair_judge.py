"""What evaluation asks of a judge that reads two responses. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mpo.score.base import Item
from mpo.score.verdicts import NoVerdict, Verdict


class PairJudge(ABC):
    """A scorer that can say of two responses which one is better; evaluation asks it in both orders."""

    @abstractmethod
    def question(self, item: Item, first: str, second: str) -> str:
        """The whole question about two responses to the item's conversation, ``first`` being read first."""

    @abstractmethod
    def decide(self, questions: Sequence[str]) -> Iterator[tuple[int, Verdict | NoVerdict]]:
        """The share of a win that goes to the response read first, beside the question's place, as they come.

        Raises:
            UserError: the judge cannot be asked.
        """

    @property
    @abstractmethod
    def asked_as(self) -> Mapping[str, Any]:
        """What decides a verdict beside the question, as plain values: the judge's name, how it is asked."""

    @property
    @abstractmethod
    def prompt_version(self) -> str:
        """Another one for every wording of the question."""

    @property
    @abstractmethod
    def judge_name(self) -> str:
        """The model that judges."""
