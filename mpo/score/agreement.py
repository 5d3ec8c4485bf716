"""How far two scorers agree on the same responses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

SAME_ORDER, SAME_BEST = "pairs in the same order", "sets with the same best"


def agreements(scores: Mapping[str, Sequence[float]], sizes: Sequence[int]) -> dict[str, float]:
    """For each two scorers: the share of pairs of responses to one prompt that both order the same way, among those
    that both order; and the share of sets whose best response is the same one, ties broken by position.

    Args:
        scores: of every response, set after set, by scorer.
        sizes: responses of each set.
    """
    ends = np.cumsum(sizes)[:-1]
    by_set = {name: np.split(np.asarray(values, dtype=float), ends) for name, values in scores.items()}
    found = {}
    for one, other in itertools.combinations(sorted(scores), 2):
        same, ordered, best, sets = 0.0, 0.0, 0, 0
        for a_K, b_K in zip(by_set[one], by_set[other], strict=True):
            if len(a_K) < 2:
                continue
            signs_KK = np.sign(a_K[:, None] - a_K) * np.sign(b_K[:, None] - b_K)
            same += float((signs_KK > 0).sum())
            ordered += float((signs_KK != 0).sum())
            best += int(a_K.argmax() == b_K.argmax())
            sets += 1
        named = f"{one} and {other}"
        if ordered:
            found[f"{named}: {SAME_ORDER}"] = same / ordered
        if sets:
            found[f"{named}: {SAME_BEST}"] = best / sets
    return found
