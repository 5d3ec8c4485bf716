"""Partitions into any number of ordered bins, and the one that puts everything into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mpo.errors import ConfigError
from mpo.partition.base import Partition, Shape, best_first


@dataclass(frozen=True)
class KBin(Partition):
    """Bins ordered by score, sizes as equal as can be, larger bins first (MPO fig. 7).

    Of tied scores the earlier counts as better, so that a bin's size never depends on ties. A set of fewer responses
    than bins has one response a bin.

    Raises:
        ConfigError: ``bins`` below 2.
    """

    bins: int = 4
    shape: ClassVar[Shape] = Shape.ordered

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ConfigError(f"bins is {self.bins}", "partition.bins", "give the number of bins, at least 2")

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        size, larger = divmod(len(scores), self.bins)
        result = [0] * len(scores)
        for rank, index in enumerate(best_first(scores)):
            in_larger = larger * (size + 1)
            result[index] = rank // (size + 1) if rank < in_larger else larger + (rank - in_larger) // size
        return result


@dataclass(frozen=True)
class Ranks(Partition):
    """One bin for each distinct score, best first; tied scores share a bin (Plackett-Luce, all pairs).

    Attributes:
        kept: of the best and of the worst responses so many, the middle dropped, as ``TopBottom`` does: the same
            responses under another objective (MPO tab. 5). None: all.

    Raises:
        ConfigError: ``kept`` below 1.
    """

    kept: int | None = None
    shape: ClassVar[Shape] = Shape.ordered

    def __post_init__(self) -> None:
        if self.kept is not None and self.kept < 1:
            raise ConfigError(f"kept is {self.kept}", "partition.kept", "give at least 1, or null for all responses")

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        order = best_first(scores)
        dropped = set() if self.kept is None else set(order[self.kept : len(order) - self.kept])
        distinct = sorted({score for index, score in enumerate(scores) if index not in dropped}, reverse=True)
        rank = {score: number for number, score in enumerate(distinct)}
        return [-1 if index in dropped else rank[score] for index, score in enumerate(scores)]


@dataclass(frozen=True)
class Everything(Partition):
    """Every response in bin 0: for losses that read scores or nothing, but no bins."""

    shape: ClassVar[Shape] = Shape.everything

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        return [0] * len(scores)
