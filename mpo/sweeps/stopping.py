"""Which members of a sweep are hopeless: the median stopping rule (Golovin et al. 2017, Google Vizier)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mpo.train.best import best_so_far

FEWEST = 4
"""Members that have to be done before others are compared with them."""


def medians(members: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> list[float]:
    """Of each evaluation, the median over members of the best value of the metric up to there, as long as
    :data:`FEWEST` of them have one.

    Args:
        members: records of each one's training.
        metric: as in ``train.keep_best``.
    """
    found: list[float] = []
    for values in itertools.zip_longest(*(best_so_far(records, metric) for records in members), fillvalue=math.nan):
        known = [value for value in values if not math.isnan(value)]
        if len(known) < FEWEST:
            break
        found.append(statistics.median(known))
    return found
