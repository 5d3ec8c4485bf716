"""How often something happened in independent draws, with its interval, and what that says of a bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from scipy.special import betaincinv

CONFIDENCE = 0.999
"""Of each interval by itself: of a hundred true bounds, one misses its interval once in ten runs."""


class Verdict(Enum):
    """A bound beside a measured probability."""

    HOLDS = "holds"
    BROKEN = "broken"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Proportion:
    """``count`` of ``draws``, with binomial standard error and exact (Clopper-Pearson) interval ``low``..``high``."""

    count: int
    draws: int
    value: float
    standard_error: float
    low: float
    high: float

    def against_lower(self, bound: float) -> Verdict:
        """Whether the probability is at least ``bound``, as far as the interval tells."""
        return _verdict(self.low >= bound, self.high < bound)

    def against_upper(self, bound: float) -> Verdict:
        """Whether the probability is at most ``bound``, as far as the interval tells."""
        return _verdict(self.high <= bound, self.low > bound)

    def __str__(self) -> str:
        if self.count in (0, self.draws):  # whose standard error says nothing
            return f"< {self.high:.2g}" if self.count == 0 else f"> {self.low:.6g}"
        places = max(0, 1 - math.floor(math.log10(self.standard_error)))
        return f"{self.value:.{places}f} ± {self.standard_error:.{places}f}"


def proportion(count: int, draws: int, confidence: float = CONFIDENCE) -> Proportion:
    """The share of ``draws`` (at least one) in which something happened, which it did ``count`` times."""
    value, tail = count / draws, (1 - confidence) / 2
    low = float(betaincinv(count, draws - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, draws - count, 1 - tail)) if count < draws else 1.0
    return Proportion(count, draws, value, math.sqrt(value * (1 - value) / draws), low, high)


def _verdict(inside: bool, outside: bool) -> Verdict:
    return Verdict.HOLDS if inside else Verdict.BROKEN if outside else Verdict.UNDECIDED
