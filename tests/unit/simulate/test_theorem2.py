from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binomtest, multivariate_normal

from mpo.simulate import theorem2
from mpo.simulate.order import accepted, full_order_right, two_bins_right
from mpo.simulate.proportions import Verdict, proportion


def test_of_two_responses_both_probabilities_are_that_of_one_pair() -> None:
    for beta in (0.1, 0.3, 0.6, 1.0, 2.0):
        pair = float(ndtr(1 / (math.sqrt(2) * beta)))
        assert two_bins_right(2, beta) == pytest.approx(pair, abs=1e-10)
        assert full_order_right(2, beta) == pytest.approx(pair, abs=1e-6)


def test_of_three_responses_both_are_bivariate_normal_probabilities() -> None:
    beta = 0.7
    gaps = np.asarray([1.0, 1.0]) / beta
    adjacent = multivariate_normal.cdf(gaps, cov=[[2.0, -1.0], [-1.0, 2.0]])
    assert full_order_right(3, beta) == pytest.approx(adjacent, abs=1e-6)
    assert accepted(3) == 2
    above_one = multivariate_normal.cdf(np.asarray([1.0, 2.0]) / beta, cov=[[2.0, 1.0], [1.0, 2.0]])
    assert two_bins_right(3, beta) == pytest.approx(above_one, abs=1e-6)


def test_all_orders_of_four_responses_by_enumeration() -> None:
    """With equal true values every order is as likely; what the counting of an order calls right is one of 24."""
    orders = list(itertools.permutations(range(4)))
    ascending = [order for order in orders if list(order) == sorted(order)]
    halves = [order for order in orders if max(order[:2]) < min(order[2:])]
    row = theorem2.simulate(0, ks=(4,), betas=(1e6,), draws=200_000)[0]  # noise beside which the values are equal
    assert row.full_order.low < len(ascending) / len(orders) < row.full_order.high
    assert row.two_bins.low < len(halves) / len(orders) < row.two_bins.high


def test_both_bounds_hold_and_the_draws_agree_with_the_quadrature() -> None:
    rows = theorem2.simulate(0, ks=(4, 5, 8, 32), betas=(0.3, 0.6, 1.0), draws=30_000)
    assert len(rows) == 12
    for row in rows:
        assert (row.two_bins_verdict, row.full_order_verdict) == (Verdict.HOLDS, Verdict.HOLDS), row
        assert row.two_bins.low <= row.two_bins_exact <= row.two_bins.high
        assert row.full_order.low <= row.full_order_exact <= row.full_order.high
        assert row.two_bins_exact >= row.two_bins_bound and row.full_order_exact <= row.full_order_bound


def test_the_lower_bound_follows_from_the_union_over_pairs() -> None:
    """Of ever more responses, m pairs across the cut are m gaps apart; the bound is empty where it stops to follow."""
    for beta in np.linspace(0.05, 1.06, 60):
        apart = np.arange(1, 200)
        union = float((apart * ndtr(-apart / (math.sqrt(2) * beta))).sum())
        assert 1 - union >= theorem2.two_bins_bound(float(beta)) - 1e-12
    assert theorem2.two_bins_bound(1.05) > 0 > theorem2.two_bins_bound(1.07)


def test_neither_the_split_at_the_mean_nor_less_noise_is_covered() -> None:
    row = theorem2.simulate(0, ks=(16,), betas=(0.4,), draws=20_000)[0]
    assert row.mean_split.against_lower(row.two_bins_bound) is Verdict.BROKEN
    assert full_order_right(8, 0.3) > theorem2.full_order_bound(8, 0.6)
    assert any("split at the mean" in line and "1 of 1 cells" in line for line in theorem2.findings([row]))


def test_a_row_depends_on_its_seed_alone() -> None:
    rows = theorem2.simulate(7, ks=(4, 8), betas=(0.5,), draws=5_000)
    assert rows == theorem2.simulate(7, ks=(4, 8), betas=(0.5,), draws=5_000)
    assert rows[1:] == theorem2.simulate(7, ks=(8,), betas=(0.5,), draws=5_000)
    assert rows != theorem2.simulate(8, ks=(4, 8), betas=(0.5,), draws=5_000)


def test_the_figure_and_the_table_take_any_grid(tmp_path: Path) -> None:
    rows = theorem2.simulate(0, ks=(3,), betas=(0.5,), draws=1_000)
    theorem2.figure(rows, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert "| 3 | 0.5 |" in theorem2.markdown(rows)


def test_an_interval_decides_about_a_bound_only_where_it_can() -> None:
    half = proportion(50, 100)
    exact = binomtest(50, 100).proportion_ci(0.999, method="exact")
    assert (half.low, half.high) == pytest.approx((exact.low, exact.high))
    assert half.against_lower(0.3) is Verdict.HOLDS and half.against_upper(0.3) is Verdict.BROKEN
    assert half.against_lower(0.5) is Verdict.UNDECIDED and half.against_upper(0.5) is Verdict.UNDECIDED
    none, every = proportion(0, 1000), proportion(1000, 1000)
    assert none.low == 0 and none.high == pytest.approx(1 - 0.0005 ** (1 / 1000))
    assert (str(none), str(every)) == ("< 0.0076", "> 0.992428")
