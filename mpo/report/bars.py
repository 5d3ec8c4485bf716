"""Small bars for the cells of a table: one scale for all numbers that are compared with one another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mpo.evaluate.records import Baseline, Estimate


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from zero to a value with a whisker of one standard error each way, in percent of the scale's width."""

    left: float
    width: float
    whisker_left: float = 0.0
    whisker_width: float = 0.0


def bars_of(numbers: Sequence[tuple[float, float | None]]) -> list[Bar | None]:
    """Bars of (value, standard error) on one scale that holds zero and all whiskers; None for what is not finite."""
    known = [(value, _whisker(error)) for value, error in numbers if math.isfinite(value)]
    low = min((value - error for value, error in known), default=0.0)
    high = max((value + error for value, error in known), default=0.0)
    low, high = min(0.0, low), max(0.0, high)
    span = (high - low) or 1.0

    def bar(value: float, error: float | None) -> Bar | None:
        if not math.isfinite(value):
            return None
        whisker = _whisker(error)
        return Bar(
            left=100 * (min(value, 0.0) - low) / span,
            width=100 * abs(value) / span,
            whisker_left=100 * (value - whisker - low) / span,
            whisker_width=100 * 2 * whisker / span,
        )

    return [bar(value, error) for value, error in numbers]


def estimate_bars(estimate: Estimate) -> list[Bar | None]:
    """Bars of an estimate and then of its baselines."""
    numbers: list[Estimate | Baseline] = [estimate, *estimate.baselines]
    return bars_of([(one.value, one.standard_error) for one in numbers])


def column_bars(
    measure: str, evaluations: Sequence[Mapping[str, Estimate]], baselines: Sequence[Baseline | None]
) -> list[Bar | None]:
    """Bars of one measure for each of ``evaluations`` and then of ``baselines``; None where there is no number."""
    found: list[Estimate | Baseline | None] = [*(one.get(measure) for one in evaluations), *baselines]
    return bars_of([(math.nan, None) if one is None else (one.value, one.standard_error) for one in found])


def shared_baselines(measure: str, evaluations: Iterable[Mapping[str, Estimate]]) -> tuple[Baseline, ...]:
    """Baselines of a measure that all evaluations that have the measure share."""
    found = [evaluation[measure].baselines for evaluation in evaluations if measure in evaluation]
    return tuple(one for one in found[0] if all(one in others for others in found)) if found else ()


def _whisker(error: float | None) -> float:
    return error if error is not None and math.isfinite(error) else 0.0
