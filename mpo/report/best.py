"""The best setting of a sweep and how sure that is: who is near, and what the best of many owes to luck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpo.report.sweep_record import Outcome, SweepRecord

DRAWS = 4000


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
    values_NS = np.asarray([each.values for each in ranked]) * sign
    seeds = values_NS.shape[1]
    if seeds > 1:
        left_out = []
        for seed in range(seeds):
            others = np.delete(values_NS, seed, axis=1).mean(axis=1)
            left_out.append(values_NS[int(others.argmax()), seed])
        how = f"chosen by all seeds but one and read off that one, mean over the {seeds} seeds"
        return Expected(sign * float(np.mean(left_out)), how)
    errors_N = np.asarray([each.error if each.error is not None else math.nan for each in ranked])
    if not np.isfinite(errors_N).all():
        return None
    bias = _luck(values_NS[:, 0], errors_N)
    how = "parametric bootstrap with the errors of the evaluation; how training varies with its seed is not in it"
    return Expected(sign * (float(values_NS[0, 0]) - bias), how)


def _luck(means_N: np.ndarray, errors_N: np.ndarray) -> float:
    """By how much the highest of ``means_N`` lies above the true mean of its setting, on average.

    Observed means are further apart than true ones. Drawn towards their mean by the share of their variance that the
    errors explain, they stand for the truth (empirical Bayes), to which errors are then drawn.
    """
    noise = float(np.mean(errors_N**2))
    between = max(0.0, float(np.var(means_N, ddof=1)) - noise)
    shrunk_N = means_N.mean() + (means_N - means_N.mean()) * between / (between + noise or 1.0)
    drawn_DN = shrunk_N + np.random.default_rng(0).standard_normal((DRAWS, len(means_N))) * errors_N
    chosen_D = drawn_DN.argmax(axis=1)
    return float(np.mean(drawn_DN.max(axis=1) - shrunk_N[chosen_D]))
