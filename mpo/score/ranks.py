"""What the scores of sampled sets look like from the best response to the worst."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_by_rank(scores: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Mean score of the best response of a set, of the second best, and so on; a rank is averaged over the sets that
    have it.

    Args:
        scores: of every response, set after set.
        sizes: responses of each set.
    """
    longest = max(sizes, default=0)
    sums_K, counts_K = np.zeros(longest), np.zeros(longest)
    for one in np.split(np.asarray(scores, dtype=float), np.cumsum(sizes)[:-1]):
        sums_K[: len(one)] += np.sort(one)[::-1]
        counts_K[: len(one)] += 1
    return [float(value) for value in sums_K / np.maximum(counts_K, 1)]
