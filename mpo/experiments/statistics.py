"""Means over replications, paired differences, and what they can resolve."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Summary:
    """A number over ``n`` replications. ``error``: standard error of the mean, NaN of one."""

    n: int
    mean: float
    error: float
    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference over the ``n`` replications that both have.

    ``low``, ``high``: 95 % interval of Student's t. ``resolvable``: the true difference that so many replications with
    such a spread would find at the 5 % level (two-sided) four times of five.
    """

    n: int
    mean: float
    error: float
    low: float
    high: float
    resolvable: float

    @property
    def verdict(self) -> str:
        """What it says of a predicted positive difference."""
        if self.n < 2:
            return "not measured often enough"
        if self.low > 0:
            return "holds"
        if self.high < 0:
            return "the other way round"
        return "not resolved"


def summarise(values: Sequence[float]) -> Summary:
    """Raises ``statistics.StatisticsError`` for no value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Summary(len(values), statistics.fmean(values), error, statistics.median(values), min(values), max(values))


def paired(left: Mapping[int, float], right: Mapping[int, float]) -> Difference:
    """``left`` minus ``right``, replication by replication."""
    differences = [left[unit] - right[unit] for unit in sorted(left.keys() & right.keys())]
    n = len(differences)
    if n == 0:
        return Difference(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    mean = statistics.fmean(differences)
    if n == 1:
        return Difference(1, mean, math.nan, -math.inf, math.inf, math.inf)
    error = statistics.stdev(differences) / math.sqrt(n)
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1))
    return Difference(n, mean, error, mean - reach * error, mean + reach * error, _resolvable(error, n))


def _resolvable(error: float, n: int) -> float:
    """Where the noncentral t distribution exceeds the two-sided 5 % point four times of five."""
    if error == 0.0:
        return 0.0
    point = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1))
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(stats.nct.sf(point, n - 1, middle)) < POWER else (low, middle)
    return high * error
