"""Tests on paired differences. numpy and scipy, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

EXACT_UP_TO = 14
"""Differences of which every pattern of signs is tried; of more, :data:`DRAWN` random ones."""
DRAWN = 10_000
_AT_ONCE = 500


@dataclass(frozen=True)
class Paired:
    """Differences of pairs, tested for a mean of zero, two-sided.

    Attributes:
        mean: of the differences; NaN without any.
        standard_error: standard deviation (n - 1) by √n; NaN for fewer than two.
        n: pairs.
        t_p: p-value of the paired t-test; NaN for fewer than two.
        sign_p: p-value of the permutation test that swaps the two of a pair: how often a mean this far from zero
            comes of random signs.
        patterns: of signs that were tried.
        exact: whether these were all.
    """

    mean: float
    standard_error: float
    n: int
    t_p: float
    sign_p: float
    patterns: int
    exact: bool


def paired(differences_N: Sequence[float]) -> Paired:
    """Test the differences, finite numbers, of independent pairs. The same for the same differences."""
    d_N = np.asarray(differences_N, np.float64)
    n = len(d_N)
    if n == 0:
        return Paired(math.nan, math.nan, 0, math.nan, math.nan, 0, True)
    mean = float(d_N.mean())
    if n == 1:
        return Paired(mean, math.nan, 1, math.nan, 1.0, 2, True)
    error = float(d_N.std(ddof=1) / math.sqrt(n))
    t_p = 1.0 if mean == 0 else 0.0  # where all differences are the same
    if error > 1e-12 * abs(mean):
        t_p = float(2 * stdtr(n - 1, -abs(mean) / error))
    return Paired(mean, error, n, t_p, _sign_p(d_N), 2**n if n <= EXACT_UP_TO else DRAWN, n <= EXACT_UP_TO)


def _sign_p(d_N: np.ndarray) -> float:
    n = len(d_N)
    reached = abs(d_N.sum()) * (1 - 1e-12) - 1e-300  # equal sums, added in another order, may differ in a last bit
    if n <= EXACT_UP_TO:
        patterns_P = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return float(np.mean(np.abs((1 - 2 * patterns_P) @ d_N) >= reached))
    draw = np.random.default_rng(0)
    hits = 0
    for start in range(0, DRAWN, _AT_ONCE):
        signs = 1 - 2 * draw.integers(0, 2, (min(_AT_ONCE, DRAWN - start), n), np.int8)
        hits += int(np.sum(np.abs(signs @ d_N) >= reached))
    return (hits + 1) / (DRAWN + 1)  # the pattern that was seen is one of them
