"""What a judge is asked through: conversations in, answers with their log-probs out. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpo.errors import UserError
from mpo.types import Message


@dataclass(frozen=True)
class Answer:
    """An answer of a language model.

    Attributes:
        text: all of it.
        tokens: as the chat API gives them, ``token``, ``logprob`` and ``top_logprobs``; empty where there are none.
        ended: why it ended, ``stop`` or ``length``, say.
    """

    text: str
    tokens: Sequence[Mapping[str, Any]]
    ended: str


@dataclass(frozen=True)
class Refused:
    """A conversation that is not answered, being too long, say; others may be. ``error``: what to raise of it."""

    error: UserError


class Chat(ABC):
    """A language model at temperature 0, on a server or in this process."""

    @abstractmethod
    def answers(
        self, conversations: Sequence[Sequence[Message]], most_tokens: int, top_logprobs: int
    ) -> Iterator[tuple[int, Answer | Refused]]:
        """The answer to each conversation beside its place, in the order in which they come.

        Args:
            most_tokens: of an answer.
            top_logprobs: alternatives of each token whose log-probs are given; 0: no log-probs.

        Raises:
            UserError: the model cannot be asked at all.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what it holds."""
