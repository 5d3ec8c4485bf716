"""Partitions into accepted (bin 0) and rejected (bin 1) responses."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpo.errors import ConfigError, DataError
from mpo.partition.base import Partition, Shape, best_first


def _above(scores: Sequence[float], centre: float) -> list[int]:
    # 2.2 is the mean of 1.1, 2.2, 3.3 although float arithmetic has it a rounding error lower.
    slack = 1e-12 * max(abs(score) for score in scores)
    return [0 if score - centre > slack else 1 for score in scores]


@dataclass(frozen=True)
class Mean(Partition):
    """Accepted where S_i > mean(S), the rest rejected (MPO eq. 12-13)."""

    shape: ClassVar[Shape] = Shape.two

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        return _above(scores, statistics.fmean(scores))


@dataclass(frozen=True)
class Median(Partition):
    """Accepted where S_i > median(S), the rest rejected (MPO tab. 7)."""

    shape: ClassVar[Shape] = Shape.two

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        return _above(scores, statistics.median(scores))


@dataclass(frozen=True)
class TrimmedMean(Partition):
    """Accepted where S_i exceeds the mean without the floor(trim·K) lowest and highest (MPO tab. 7, A.3).

    Raises:
        ConfigError: ``trim`` outside [0, 0.5).
    """

    trim: float = 0.1
    shape: ClassVar[Shape] = Shape.two

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 0.5:
            raise ConfigError(f"trim is {self.trim}", "partition.trim", "give a share in [0, 0.5)")

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        cut = int(self.trim * len(scores) + 1e-9)  # 0.29 * 100 is 28.999999999999996
        return _above(scores, statistics.fmean(sorted(scores)[cut : len(scores) - cut]))


@dataclass(frozen=True)
class TopBottom(Partition):
    """The k best accepted, the k worst rejected, the middle dropped (MPO on-policy: K 5, k 2).

    Of tied scores the earlier counts as better. A set of fewer than 2k responses gives floor(K/2) to each side.

    Raises:
        ConfigError: ``k`` below 1.
    """

    k: int = 2
    shape: ClassVar[Shape] = Shape.two

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}", "partition.k", "give the number of responses a side, at least 1")

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        order = best_first(scores)
        size = min(self.k, len(scores) // 2)
        result = [-1] * len(scores)
        for index in order[:size]:
            result[index] = 0
        for index in order[len(order) - size :]:
            result[index] = 1
        return result


@dataclass(frozen=True)
class BestVsRest(Partition):
    """The best accepted (of ties the first), all others rejected (MPO tab. 1, 1-vs-K)."""

    shape: ClassVar[Shape] = Shape.two

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        best = best_first(scores)[0]
        return [0 if index == best else 1 for index in range(len(scores))]


@dataclass(frozen=True)
class BestVsWorst(Partition):
    """The best accepted (of ties the first), the worst rejected (of ties the last), the rest dropped."""

    shape: ClassVar[Shape] = Shape.pair

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        order = best_first(scores)
        result = [-1] * len(scores)
        result[order[-1]] = 1
        result[order[0]] = 0
        return result


@dataclass(frozen=True)
class BestVsRandom(Partition):
    """The best accepted (of ties the first), one of the others rejected by ``draw``, the rest dropped (Zephyr)."""

    shape: ClassVar[Shape] = Shape.pair

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        best = best_first(scores)[0]
        others = [index for index in range(len(scores)) if index != best]
        result = [-1] * len(scores)
        result[best] = 0
        if others:
            result[others[draw % len(others)]] = 1
        return result


@dataclass(frozen=True)
class Given(Partition):
    """The data's own marks: accepted, rejected, and dropped where a response has none.

    Raises:
        DataError: the set has no marks, or not one for each response.
    """

    shape: ClassVar[Shape] = Shape.two
    reads_marks: ClassVar[bool] = True

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        remedy = "choose a partition that reads scores, or mark the responses"
        if accepted is None or all(mark is None for mark in accepted):
            raise DataError("partition given needs accepted/rejected marks, the set has none", remedy=remedy)
        if len(accepted) != len(scores):
            raise DataError(f"{len(accepted)} accepted/rejected marks for {len(scores)} responses", remedy=remedy)
        return [-1 if mark is None else 0 if mark else 1 for mark in accepted]
