"""The joint fit of length-controlled win rates, on judgements whose law is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mpo.evaluate.annotations.length_control import Comparisons, LengthControl, control_length

UNKNOWN = np.array([np.nan, np.nan])


def drawn(seed: int, quality_M: list[float], effect: float, spread: float, count: int) -> Comparisons:
    """0/1 judgements of each model on each instruction, answers shorter than the baseline's on the whole."""
    rng = np.random.default_rng(seed)
    models_N = np.repeat(np.arange(len(quality_M)), count)
    instructions_N = np.tile(np.arange(count), len(quality_M))
    differences_N = rng.normal(-600, 900, len(models_N))
    lengths_N = np.tanh(differences_N / differences_N.std())
    z_N = np.array(quality_M)[models_N] + effect * lengths_N + spread * rng.normal(size=count)[instructions_N]
    wins_N = (rng.random(len(z_N)) < 1 / (1 + np.exp(-z_N))).astype(float)
    return Comparisons(models_N, instructions_N, wins_N, differences_N, np.ones(len(z_N)))


def expected_rate(quality: float, spread: float) -> float:
    draws = quality + spread * np.random.default_rng(0).normal(size=200_000)
    return float((1 / (1 + np.exp(-draws))).mean())


def test_quality_length_and_difficulty_are_told_apart() -> None:
    comparisons = drawn(0, [0.5, -1.0, -2.0, 1.0], effect=0.8, spread=1.2, count=1000)
    found = control_length(comparisons, np.full(4, np.nan))
    assert found.joint
    assert found.length_effect == pytest.approx(0.8, abs=0.15)
    assert found.difficulty == pytest.approx(1.2, abs=0.2)
    expected = [expected_rate(quality, 1.2) for quality in (0.5, -1.0, -2.0, 1.0)]
    np.testing.assert_allclose(found.rates_M, expected, atol=0.03)


def test_standard_errors_cover() -> None:
    truth, hits = expected_rate(-1.0, 1.0), 0
    for seed in range(20):
        found = control_length(drawn(seed, [0.3, -1.0], effect=0.6, spread=1.0, count=100), UNKNOWN)
        hits += abs(found.rates_M[1] - truth) < 2 * found.errors_M[1]
    assert hits >= 17  # 95 % of 20 is 19


def test_a_judge_of_length_alone_is_brought_towards_even() -> None:
    comparisons = drawn(1, [0.0, 0.0], effect=0.9, spread=0.0, count=1500)
    assert comparisons.wins_N.mean() < 0.43
    np.testing.assert_allclose(control_length(comparisons, UNKNOWN).rates_M, 0.5, atol=0.03)


def test_one_model_has_no_difficulty_and_equal_lengths_leave_the_raw_rate() -> None:
    one = Comparisons(np.zeros(4, int), np.arange(4), np.array([0.9, 0.7, 0.2, 0.8]), np.zeros(4), np.ones(4))
    found = control_length(one, np.array([np.nan]))
    assert not found.joint
    assert (found.difficulty, found.length_effect) == (0.0, 0.0)
    assert found.rates_M[0] == pytest.approx(0.65, abs=0.002)  # the prior of the quality is wide, not flat


def test_a_model_that_never_wins_is_finite() -> None:
    comparisons = replace(drawn(2, [0.0, 0.0], 0.5, 0.5, 50), wins_N=np.zeros(100))
    found = control_length(comparisons, UNKNOWN)
    assert np.all((found.rates_M > 0) & (found.rates_M < 0.02))
    assert np.isfinite(found.errors_M).all()


def repeated(comparisons: Comparisons, wins_RN: np.ndarray) -> Comparisons:
    times = len(wins_RN)
    return Comparisons(
        np.tile(comparisons.models_N, times),
        np.tile(comparisons.instructions_N, times),
        wins_RN.reshape(-1),
        np.tile(comparisons.differences_N, times),
        np.tile(comparisons.weights_N / times, times),
    )


def test_repeats_count_as_one_and_order_does_not_matter() -> None:
    comparisons = drawn(3, [0.2, -0.5], 0.7, 0.8, 60)
    alone = control_length(comparisons, UNKNOWN)
    copied = control_length(repeated(comparisons, np.tile(comparisons.wins_N, (3, 1))), UNKNOWN)
    order = np.random.default_rng(0).permutation(120)
    shuffled = control_length(Comparisons(*(value[order] for value in vars(comparisons).values())), UNKNOWN)
    for other, tolerance in ((copied, 0.005), (shuffled, 1e-8)):  # copies change the deviation's n − 1
        np.testing.assert_allclose(other.rates_M, alone.rates_M, atol=tolerance)
        np.testing.assert_allclose(other.errors_M, alone.errors_M, atol=tolerance)


def test_the_judges_error_is_the_spread_of_asking_again() -> None:
    comparisons = drawn(4, [0.2, -0.5], 0.7, 0.8, 40)
    rng = np.random.default_rng(5)

    def asked(times: int) -> LengthControl:
        wins_RN = comparisons.wins_N * 0.6 + 0.2 + rng.normal(0, 0.1, (times, 80))
        return control_length(repeated(comparisons, wins_RN), np.array([0.01, 0.01]))

    found = [asked(2) for _ in range(30)]
    spread_M = np.std([one.rates_M for one in found], axis=0)
    np.testing.assert_allclose(np.mean([one.judge_errors_M for one in found], axis=0), spread_M, rtol=0.4)
    assert np.isnan(control_length(comparisons, np.array([0.01, np.nan])).judge_errors_M).tolist() == [False, True]
