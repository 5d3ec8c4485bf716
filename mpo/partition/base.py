"""What a partition is: scores of one response set to bins, and the shape that the bins have."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from mpo.errors import DataError


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
        """
        if not scores:
            raise DataError("a set without responses has no bins", remedy="leave it out before the partition")
        for index, score in enumerate(scores):
            if not math.isfinite(score):
                raise DataError(f"score {score} of response {index} is not finite", remedy="mend or drop the row")
        return self.assign(scores, accepted, draw)

    def keeps(self, responses: int) -> int:
        """How many of ``responses`` with distinct scores (and marks by turns) it puts into bins, to be forwarded."""
        scores = [float(responses - k) for k in range(responses)]
        bins = self(scores, [k % 2 == 0 for k in range(responses)])
        return sum(which >= 0 for which in bins)

    @abstractmethod
    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        """The rule itself, on checked scores; see ``__call__``."""


def best_first(scores: Sequence[float]) -> list[int]:
    """Indices from the best score to the worst; of tied scores the earlier comes first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
