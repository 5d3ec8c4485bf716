"""The best setting of a sweep and how sure that is: who is near, and what the best of many owes to luck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpo.report.sweep_record import Outcome, SweepRecord


@dataclass(frozen=True)
class Expected:
    """What the best setting is expected to give when it is tried again, and how that is known."""

    value: float
    how: str


@dataclass(frozen=True)
class Best:
    """The best of ``ranked``, which holds complete settings, best first.

    ``apart``: how far each lies behind the best, in standard errors of the difference; None where errors are not known.
    """

    ranked: tuple[Outcome, ...]
    apart: tuple[float | None, ...]
    expected: Expected | None

    @property
    def outcome(self) -> Outcome:
        """The best setting's."""
        return self.ranked[0]

    def others_within(self, errors: float) -> int | None:
        """Other settings less than so many standard errors of the difference behind; None where that is not known."""
        if any(each is None for each in self.apart):
            return None
        return sum(each < errors for each in self.apart[1:] if each is not None)


def best_of(found: Sequence[Outcome], record: SweepRecord) -> Best | None:
    """The standing of the settings that have a value for every seed; None where none has."""
    sign = 1.0 if record.direction == "maximize" else -1.0
    ranked = sorted((each for each in found if each.complete), key=lambda each: -sign * each.mean)
    if not ranked:
        return None
    apart = tuple(_apart(ranked[0], each) for each in ranked)
    return Best(tuple(ranked), apart, _expected(ranked, sign) if len(ranked) > 1 else None)


def _apart(best: Outcome, other: Outcome) -> float | None:
    if best.error is None or other.error is None or not math.isfinite(best.error + other.error):
        return None
    distance, error = abs(best.mean - other.mean), math.hypot(best.error, other.error)
    return distance / error if error else (math.inf if distance else 0.0)


def _expected(ranked: Sequence[Outcome], sign: float) -> Expected | None:
    """Over seeds, the value at a seed that had no part in the choice; else an empirical Bayes estimate."""
    values_NS = np.asarray([each.values for each in ranked]) * sign
    seeds = values_NS.shape[1]
    if seeds > 1:
        left_out = []
        for seed in range(seeds):
            others = np.delete(values_NS, seed, axis=1).mean(axis=1)
            left_out.append(values_NS[int(others.argmax()), seed])
        how = f"chosen by all seeds but one and read off that one, mean over the {seeds} seeds"
        return Expected(sign * float(np.mean(left_out)), how)
    if any(each.error is None or not math.isfinite(each.error) for each in ranked):
        return None
    means_N = values_NS[:, 0]
    noise = float(np.mean([each.error**2 for each in ranked if each.error is not None]))
    between = max(0.0, float(np.var(means_N, ddof=1)) - noise)
    middle = float(means_N.mean())
    own = float(ranked[0].error or 0.0) ** 2
    share = between / (between + own) if between + own else 1.0
    how = "drawn towards the mean of all settings by as much of the variance as the errors of the evaluation explain; "
    how += "how training varies with its seed is not in it"
    return Expected(sign * (middle + share * (float(means_N[0]) - middle)), how)
