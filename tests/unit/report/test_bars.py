from __future__ import annotations

import math

import pytest

from mpo.evaluate.records import Baseline, Estimate
from mpo.report.bars import Bar, bars_of, column_bars, estimate_bars, shared_baselines

START = Baseline("start", 4.0, 0.5)


def test_bars_share_a_scale_from_zero_that_holds_the_whiskers() -> None:
    full, half = bars_of([(8.0, 2.0), (5.0, None)])
    assert full == Bar(0.0, 80.0, 60.0, 40.0)
    assert half == Bar(0.0, 50.0, 50.0, 0.0)


def test_negative_values_reach_to_the_left_of_zero() -> None:
    below, above = bars_of([(-1.0, None), (3.0, None)])
    assert below is not None and (below.left, below.width) == (0.0, 25.0)
    assert above is not None and (above.left, above.width) == (25.0, 75.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_has_no_bar(value: float) -> None:
    assert bars_of([(value, 1.0), (2.0, math.nan)]) == [None, Bar(0.0, 100.0, 100.0, 0.0)]
    assert bars_of([]) == [] and bars_of([(0.0, None)]) == [Bar(0.0, 0.0)]


def test_an_estimate_stands_beside_its_baselines() -> None:
    own, start = estimate_bars(Estimate("m", 5.0, baselines=(START,)))
    assert own is not None and start is not None and own.width > start.width


def test_a_column_has_a_place_for_every_row() -> None:
    rows = [{"reward": Estimate("m", 1.0)}, {"other": Estimate("m", 9.0)}]
    first, second, none, baseline = column_bars("reward", rows, [None, START])
    assert first is not None and baseline is not None and (second, none) == (None, None)
    assert baseline.width > first.width


def test_only_baselines_that_all_share_are_rows() -> None:
    one, other = Estimate("m", 1.0, baselines=(START, Baseline("even", 0.5))), Estimate("m", 2.0, baselines=(START,))
    assert shared_baselines("reward", [{"reward": one}, {"reward": other}, {}]) == (START,)
    assert shared_baselines("reward", [{}]) == ()
