from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mpo.experiments.statistics import paired, summarise


def test_paired_differences_are_students_t() -> None:
    left, right = {0: 2.1, 1: 2.6, 2: 1.9, 3: 2.4, 7: 9.0}, {0: 2.0, 1: 2.2, 2: 2.0, 3: 2.0, 8: 1.0}
    found = paired(left, right)
    expected = stats.ttest_rel([2.1, 2.6, 1.9, 2.4], [2.0, 2.2, 2.0, 2.0])
    interval = expected.confidence_interval(0.95)
    assert found.n == 4  # those that both have
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean / found.error == pytest.approx(expected.statistic)
    assert found.verdict == "not resolved"


def test_verdicts() -> None:
    base = dict.fromkeys(range(5), 0.0)
    assert paired({unit: 1 + 0.01 * unit for unit in range(5)}, base).verdict == "holds"
    assert paired({unit: -1 - 0.01 * unit for unit in range(5)}, base).verdict == "the other way round"
    assert paired({0: 1.0}, base).verdict == "not measured often enough"
    assert paired({}, base).n == 0


def test_what_can_be_resolved_is_found_four_times_of_five() -> None:
    """The power of a t test simulated at the difference that it says it resolves."""
    draws = np.random.default_rng(0).normal(size=(20000, 5))
    spread = draws[0].std(ddof=1)
    resolvable = paired(dict(enumerate(draws[0])), dict.fromkeys(range(5), 0.0)).resolvable
    shifted = draws + resolvable / spread  # in units of the true spread
    assert (stats.ttest_1samp(shifted, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_a_summary_of_one_has_no_error() -> None:
    one = summarise([2.0])
    assert one.n == 1 and math.isnan(one.error)
    several = summarise([1.0, 2.0, 6.0])
    assert (several.mean, several.median, several.lowest, several.highest) == (3.0, 2.0, 1.0, 6.0)
    assert several.error == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))
