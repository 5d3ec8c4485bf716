"""Partitions of the best response against a few of the others, chosen before training (AMPO, arXiv 2502.18293)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpo.errors import ConfigError
from mpo.partition.base import Partition, Shape, best_first


@dataclass(frozen=True)
class BestVsChosen(Partition):
    """The best accepted (of ties the first), up to k of the others rejected, the rest dropped.

    Of tied scores the earlier counts as better. A set of k + 1 responses or fewer has all of the others rejected.

    Raises:
        ConfigError: ``k`` below 1.
    """

    k: int = 3
    shape: ClassVar[Shape] = Shape.two

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}", "partition.k", "give the number of rejected responses, at least 1")

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        best, *others = best_first(scores)
        result = [-1] * len(scores)
        result[best] = 0
        for index in others if len(others) <= self.k else self.choose(scores, others):
            result[index] = 1
        return result

    @abstractmethod
    def choose(self, scores: Sequence[float], others: Sequence[int]) -> list[int]:
        """Indices of those rejected, of ``others``: more than k indices, the best score first."""


@dataclass(frozen=True)
class BestVsLowest(BestVsChosen):
    """The best accepted, the k lowest-scored rejected, the rest dropped (AMPO's bottom-k)."""

    def choose(self, scores: Sequence[float], others: Sequence[int]) -> list[int]:
        return list(others[-self.k :])


@dataclass(frozen=True)
class BestVsSpread(BestVsChosen):
    """The best accepted, k of the others whose scores cover the range of theirs rejected, the rest dropped.

    First the worst is chosen; then, one at a time, the response whose score is farthest from the nearest one that is
    chosen, of equally far ones the worse: so the second is the best of the others, and responses with a score that is
    chosen already come last.
    """

    def choose(self, scores: Sequence[float], others: Sequence[int]) -> list[int]:
        *left, worst = others
        chosen = [worst]
        while len(chosen) < self.k:
            distance = [min(abs(scores[index] - scores[other]) for other in chosen) for index in left]
            farthest = max(range(len(left)), key=lambda place: (distance[place], place))
            chosen.append(left.pop(farthest))
        return chosen
