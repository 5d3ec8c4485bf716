"""What a partition is: scores of one response set to bins, and the shape that the bins have."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Integral
from typing import Any, ClassVar

from mpo.errors import ConfigError, DataError


class Shape(Enum):
    """Structure of the bins, which a loss accepts or refuses (``Loss.fits``)."""

    everything = "everything"  # one bin, nothing dropped
    pair = "pair"  # one response in bin 0, one in bin 1
    two = "two"  # accepted (0) and rejected (1), any number each
    ordered = "ordered"  # any number of bins, best first


@dataclass(frozen=True)
class Partition(ABC):
    """Rule that turns the scores of one response set into bins."""

    shape: ClassVar[Shape]
    reads_marks: ClassVar[bool] = False
    """Whether it reads the data's own marks, and so refuses sets without."""

    def __call__(
        self, scores: Sequence[float], accepted: Sequence[bool | None] | None = None, draw: int = 0
    ) -> list[int]:
        """Bins of one set: 0 best, larger is worse, -1 dropped; no gaps, but ``Mean`` and its like may accept none.

        Args:
            scores: K finite scores, larger is better.
            accepted: the data's own marks, K of them; only ``Given`` reads them.
            draw: non-negative integer, a hash of seed and set id; only ``BestVsRandom`` reads it.

        Raises:
            DataError: no scores, a score that is not finite, or marks that do not fit.
            ConfigError: the rule gives something else.
        """
        if not scores:
            raise DataError("a set without responses has no bins", remedy="leave it out before the partition")
        for index, score in enumerate(scores):
            if not math.isfinite(score):
                raise DataError(f"score {score} of response {index} is not finite", remedy="fix or drop the row")
        bins = self.assign(scores, accepted, draw)
        if not isinstance(bins, Sequence) or len(bins) != len(scores) or not all(map(_is_bin, bins)):
            what = f"{type(self).__name__} gave {bins!r} for {len(scores)} scores"
            remedy = "let assign return a list of a whole number each: 0 best, larger is worse, -1 dropped"
            raise ConfigError(what, "partition", remedy)
        return bins

    def keeps(self, responses: int) -> int:
        """How many of ``responses`` with distinct scores (and alternating marks) it puts into bins, to be forwarded."""
        scores = [float(responses - k) for k in range(responses)]
        bins = self(scores, [k % 2 == 0 for k in range(responses)])
        return sum(which >= 0 for which in bins)

    @abstractmethod
    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        """The rule itself, on checked scores; see ``__call__``."""


def _is_bin(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) >= -1


def best_first(scores: Sequence[float]) -> list[int]:
    """Indices from the best score to the worst; of tied scores the earlier comes first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
