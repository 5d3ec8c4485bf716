"""Means with standard errors, and the length-controlled win rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpo.evaluate.estimates import length_controlled, mean_over_prompts, share_of_pairs


def test_mean_and_standard_error() -> None:
    found = mean_over_prompts([1.0, 2.0, 3.0, 4.0])
    assert found.value == 2.5
    assert found.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)
    assert found.count == 4


def test_too_few_numbers_have_no_standard_error() -> None:
    assert math.isnan(mean_over_prompts([1.0]).standard_error)
    assert math.isnan(mean_over_prompts([]).value)


def test_share_of_pairs_is_over_all_pairs_and_its_error_covers_it() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):  # sets of 1 or 120 pairs, each set with an ease of its own
        pairs = np.where(rng.random(200) < 0.1, 120, 1)
        found.append(share_of_pairs(rng.binomial(pairs, rng.beta(4, 2, 200)), pairs))
    spread = np.std([one.value for one in found])
    assert np.mean([one.value for one in found]) == pytest.approx(2 / 3, abs=0.01)
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.1)
    assert math.isnan(share_of_pairs([], []).value)


def test_without_length_differences_it_is_the_mean() -> None:
    preferences = [0.9, 0.7, 0.2, 0.8]
    assert length_controlled(preferences, [0, 0, 0, 0], [0, 1, 2, 3]).value == pytest.approx(0.65, abs=1e-4)


def test_a_judge_that_sees_only_length_is_brought_to_even() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(3.0, 2.0, size=4000)
    preferences = 1 / (1 + np.exp(-2.0 * np.tanh(differences / differences.std())))
    found = length_controlled(preferences, differences, np.arange(4000))
    assert np.mean(preferences) > 0.7
    assert found.value == pytest.approx(0.5, abs=0.02)


def test_quality_survives_the_control_and_the_error_covers_it() -> None:
    rng = np.random.default_rng(1)
    theta, hits = 0.8, 0
    for _ in range(40):
        differences = rng.normal(1.0, 2.0, size=1600)
        z = theta + 0.7 * np.tanh(differences / differences.std())
        wins = (rng.random(1600) < 1 / (1 + np.exp(-z))).astype(float)
        found = length_controlled(wins, differences, np.repeat(np.arange(200), 8))
        hits += abs(found.value - 1 / (1 + math.exp(-theta))) < 2 * found.standard_error
    assert hits >= 34  # 95 % of 40 is 38


def test_samples_of_one_prompt_count_as_one() -> None:
    rng = np.random.default_rng(2)
    differences = rng.normal(0.0, 1.0, size=100)
    wins = rng.random(100)
    alone = length_controlled(wins, differences, np.arange(100))
    copied = length_controlled(np.repeat(wins, 8), np.repeat(differences, 8), np.repeat(np.arange(100), 8))
    assert copied.value == pytest.approx(alone.value, abs=1e-3)
    assert copied.standard_error == pytest.approx(alone.standard_error, rel=0.02)
