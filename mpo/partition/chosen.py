"""Partitions of the best response against a few of the others, chosen before training (AMPO, arXiv 2502.18293)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpo.errors import ConfigError
from mpo.partition.base import Partition, Shape, Similarities, best_first


@dataclass(frozen=True)
class BestVsChosen(Partition):
    """The best accepted (of ties the first), up to k of the others rejected, the rest dropped.

    Of tied scores the earlier counts as better.

    Raises:
        ConfigError: ``k`` below 1.
    """

    k: int = 3
    shape: ClassVar[Shape] = Shape.two

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}", "partition.k", "give the number of rejected responses, at least 1")

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        return self._bins(scores, ())

    def assign_embedded(self, scores: Sequence[float], similarities: Similarities) -> list[int]:
        return self._bins(scores, similarities)

    def _bins(self, scores: Sequence[float], similarities: Similarities) -> list[int]:
        best, *others = best_first(scores)
        result = [-1] * len(scores)
        result[best] = 0
        for index in self.choose(scores, others, similarities) if others else ():
            result[index] = 1
        return result

    @abstractmethod
    def choose(self, scores: Sequence[float], others: Sequence[int], similarities: Similarities) -> Sequence[int]:
        """Indices of up to k rejected ones of ``others``, which are one at least, the best score first.
        ``similarities`` are empty unless it ``needs_embeddings``."""


@dataclass(frozen=True)
class BestVsLowest(BestVsChosen):
    """The best accepted, the k lowest-scored rejected, the rest dropped (AMPO's bottom-k).

    A set of k + 1 responses or fewer has all but the best rejected.
    """

    def choose(self, scores: Sequence[float], others: Sequence[int], similarities: Similarities) -> Sequence[int]:
        return others[-self.k :]


@dataclass(frozen=True)
class BestVsSpread(BestVsChosen):
    """The best accepted, k of the others whose scores cover the range of theirs rejected, the rest dropped.

    First the worst is chosen; then, one at a time, the response whose score is farthest from the nearest one that is
    chosen, of equally far ones the worse: so the second is the best of the others, and responses with a score that is
    chosen already come last. A set of k + 1 responses or fewer has all but the best rejected.
    """

    def choose(self, scores: Sequence[float], others: Sequence[int], similarities: Similarities) -> Sequence[int]:
        *left, worst = others
        chosen = [worst]
        while left and len(chosen) < self.k:
            distance = [min(abs(scores[index] - scores[other]) for other in chosen) for index in left]
            farthest = max(range(len(left)), key=lambda place: (distance[place], place))
            chosen.append(left.pop(farthest))
        return chosen
