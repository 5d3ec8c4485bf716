from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpo.testbed.demonstrations import generate_demonstrations
from mpo.testbed.judge import judge
from mpo.testbed.reward import true_reward

PAIRS = list(generate_demonstrations(300, 1))
indices = st.integers(0, len(PAIRS) - 1)


@given(indices, indices, indices, st.integers(0, 5))
def test_swapping_the_responses_swaps_the_verdict(p: int, a: int, b: int, seed: int) -> None:
    prompt, first, second = PAIRS[p][0], PAIRS[a][1], PAIRS[b][1]
    forward = judge(prompt, first, second, seed=seed)
    assert 0.0 <= forward <= 1.0
    assert forward + judge(prompt, second, first, seed=seed) == pytest.approx(1.0)
    assert judge(prompt, first, second, seed=seed) == forward


def test_a_text_ties_with_itself() -> None:
    prompt, response = PAIRS[0]
    assert judge(prompt, response, response) == 0.5


def test_larger_reward_wins_mostly() -> None:
    verdicts = []
    for (prompt, own), (_, foreign) in pairwise(PAIRS):
        if abs(true_reward(prompt, own) - true_reward(prompt, foreign)) > 1.0:
            right = true_reward(prompt, own) > true_reward(prompt, foreign)
            verdicts.append(judge(prompt, foreign, own) if right else judge(prompt, own, foreign))
    assert len(verdicts) > 100
    assert statistics.fmean(verdicts) > 0.9


def test_length_bias_favours_the_longer_of_two_equals() -> None:
    prompt = "write 2 sentences about garden ; use : rose"
    short = "the rose sees the tree . the bee likes the fence ."
    long = "the red rose sees the tree slowly now . the black bee likes the fence gladly ."
    assert true_reward(prompt, short) == true_reward(prompt, long)
    assert judge(prompt, short, long, noise_sigma=0.0) > 0.5
    assert judge(prompt, short, long, length_bias=0.0, noise_sigma=0.0) == 0.5
    assert judge(prompt, short, long, length_bias=0.3) > judge(prompt, short, long, length_bias=0.05)


def test_seed_changes_the_noise() -> None:
    prompt = "write 2 sentences about garden ; use : rose"
    texts = (
        "the rose sees the tree . the bee likes the fence .",
        "the rose finds the tree . the bee knows the fence .",
    )
    assert len({judge(prompt, *texts, seed=seed) for seed in range(5)}) == 5
