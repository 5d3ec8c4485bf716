from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from mpo.errors import DataError
from mpo.results import Results
from mpo.results.compare import compare
from mpo.results.paired import DRAWN, paired
from mpo.results.select import conditions, select
from tests.unit.results.conftest import PROMPTS, report


@pytest.mark.parametrize("n", [2, 5, 14, 15, 200])
def test_paired_tests_are_scipys(n: int) -> None:
    d = np.random.default_rng(n).normal(0.3, 1, n)
    found = paired(d)
    assert found.t_p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert found.standard_error == pytest.approx(stats.sem(d))
    exact = stats.permutation_test((d,), np.sum, permutation_type="samples", vectorized=False) if n < 6 else None
    if exact is not None:
        assert found.sign_p == pytest.approx(exact.pvalue)
    assert found.exact == (n <= 14) and found.patterns == (2**n if n <= 14 else DRAWN)
    assert abs(found.sign_p - found.t_p) < 0.06 or n < 6


def test_no_difference_and_one_and_none() -> None:
    assert (paired([0, 0, 0]).t_p, paired([0, 0, 0]).sign_p) == (1, 1)
    assert (paired([1, 1, 1, 1]).sign_p, paired([0.1] * 4).t_p) == (2 / 16, 0)
    assert math.isnan(paired([1]).t_p) and math.isnan(paired([]).mean)


def sides(store: Results, a: str, b: str, metric: str = "true_reward"):  # type: ignore[no-untyped-def]
    rows = select(store.rows(), conditions([f"metric={metric}"]))
    return compare(store, select(rows, conditions([a])), select(rows, conditions([b])))


def test_prompts_are_paired_within_seeds_and_then_seeds(store: Results) -> None:
    (found,), both = sides(store, "loss._target_=WMPO", "loss._target_=mpo.losses.DPO")
    assert [pair.seed for pair in found.pairs] == [0, 1]
    # In a seed all runs have the same draws: each prompt differs by 0.5, then 0.6.
    assert [pair.test.mean for pair in found.pairs if pair.test] == pytest.approx([0.5, 0.6])
    assert all(pair.test and pair.test.standard_error < 1e-12 for pair in found.pairs)
    assert found.over_pairs.mean == pytest.approx(0.55) and found.over_pairs.standard_error == pytest.approx(0.05)
    assert found.over_pairs.t_p == pytest.approx(stats.ttest_1samp([0.5, 0.6], 0).pvalue)
    assert found.over_prompts is not None and found.over_prompts.n == len(PROMPTS)
    assert both.notes == ("A: runs without a partner that are left out: 1 of 3",)


def test_prompts_that_one_lacks_or_has_no_number_of_are_counted(store: Results) -> None:
    made = report("IPO", 0, 5.0, prompts=(*PROMPTS[:30], "other"))
    values = (math.nan, *made.by_prompt[0].values[1:])
    store.add(dataclasses.replace(made, by_prompt=(dataclasses.replace(made.by_prompt[0], values=values),)))
    (found,), _ = sides(store, "wmpo-seed0", "ipo-seed0")
    (pair,) = found.pairs
    assert pair.test is not None and (pair.test.n, pair.left_out) == (29, 12)
    assert pair.test.mean == pytest.approx(1.0) and found.over_prompts is None


def test_without_values_by_prompt_seeds_are_compared(store: Results) -> None:
    (found,), _ = sides(store, "loss._target_=WMPO", "loss._target_=DPO", "lc_win_rate")
    assert [pair.test for pair in found.pairs] == [None, None]
    assert found.over_pairs.mean == pytest.approx(0.0055) and found.over_prompts is None


def test_the_newest_of_several_runs_of_a_seed_counts(store: Results) -> None:
    store.add(report("DPO", 0, 4.0, created="2026-02-01T00:00:00+00:00"))
    (found,), both = sides(store, "loss._target_=WMPO", "loss._target_=DPO")
    assert found.pairs[0].test is not None and found.pairs[0].test.mean == pytest.approx(2.0)
    assert "B: older runs of the same configuration and seed that are left out: 1" in both.notes


def test_estimates_that_one_lacks_are_named(store: Results) -> None:
    made = report("IPO", 0, 5.0)
    other = dataclasses.replace(made.evaluation[0], metric="win_rate", judge="j", baseline="gpt")
    store.add(dataclasses.replace(made, evaluation=(made.evaluation[0], other)))
    rows = store.rows()
    found, both = compare(store, *(select(rows, conditions([one])) for one in ("wmpo-seed0", "ipo-seed0")))
    assert [each.about[0] for each in found] == ["true_reward"]
    assert both.notes == (
        "A: estimates that the other lacks, which are left out: lc_win_rate at T=1, judge testbed",
        "B: estimates that the other lacks, which are left out: win_rate at T=1, judge j, against gpt",
    )


def test_what_cannot_be_paired_is_said(store: Results) -> None:
    with pytest.raises(DataError, match="is in both A and B"):
        sides(store, "wmpo-seed0", "seed=0,loss._target_=WMPO")
    with pytest.raises(DataError, match="A has seeds 2, B has seeds 0, 1"):
        sides(store, "wmpo-seed2", "loss._target_=DPO")
    with pytest.raises(DataError, match="B has several configurations of seed 0, which differ in loss"):
        sides(store, "wmpo-seed0", "seed=0")
    store.add(report("DPO", 2, model={"path": "owner/other"}))
    with pytest.raises(DataError, match="no seed and starting policy are in both"):
        sides(store, "wmpo-seed2", "dpo-seed2")
