"""A pairwise judge in the manner of an LLM judge: it sees quality, with some noise and a small liking for length."""

from __future__ import annotations

import math

from mpo.testbed.reward import text_normal, true_reward

_SHARPNESS = 2.0  # A gap of one point of reward is decided with probability 0.88.


def judge(
    prompt: str, response_a: str, response_b: str, seed: int = 0, length_bias: float = 0.05, noise_sigma: float = 0.5
) -> float:
    """The preference in 0..1 that ``response_b`` beats ``response_a``; 0.5 is a tie.

    Deterministic, and free of position bias: ``judge(p, a, b) + judge(p, b, a) == 1`` up to rounding.

    Args:
        seed: picks the noise; the same texts get the same noise.
        length_bias: points of reward a token by which b is longer than a.
        noise_sigma: standard deviation of the judge's error on one response, in points of reward.

    Raises:
        DataError: ``prompt`` is no prompt of the testbed.
    """
    gap = true_reward(prompt, response_b) - true_reward(prompt, response_a)
    gap += length_bias * (len(response_b.split()) - len(response_a.split()))
    gap += noise_sigma * (text_normal(seed, prompt, response_b) - text_normal(seed, prompt, response_a))
    return 0.5 * (1.0 + math.tanh(0.5 * _SHARPNESS * gap))  # the logistic function, without overflow
