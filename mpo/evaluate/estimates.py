"""Means over prompts with standard errors, and the length-controlled win rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True)
class Mean:
    """A mean over prompts and its standard error (both NaN where there is too little to tell)."""

    value: float
    standard_error: float
    count: int


def mean_over_prompts(values: Sequence[float]) -> Mean:
    """Mean of one number per prompt; the standard error treats prompts as independent draws."""
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2:
        return Mean(float(numbers.mean()) if len(numbers) else float("nan"), float("nan"), len(numbers))
    return Mean(float(numbers.mean()), float(numbers.std(ddof=1) / np.sqrt(len(numbers))), len(numbers))


def share_of_pairs(right_N: Sequence[float], pairs_N: Sequence[int]) -> Mean:
    """Share of all pairs of all prompts together; its standard error is that of a ratio of two means over prompts.

    Args:
        right_N: of each prompt's pairs, how many are right, ties half.
        pairs_N: how many pairs each prompt has, one at least.
    """
    right, pairs = np.asarray(right_N, np.float64), np.asarray(pairs_N, np.float64)
    if not len(pairs):
        return Mean(float("nan"), float("nan"), 0)
    share = right.sum() / pairs.sum()
    error = mean_over_prompts((right - share * pairs) / pairs.mean()).standard_error
    return Mean(float(share), error, len(pairs))


def length_controlled(
    preferences_N: Sequence[float], length_differences_N: Sequence[float], prompts_N: Sequence[int]
) -> Mean:
    """Win rate with the effect of length taken out (after AlpacaEval 2, arXiv 2404.04475, eq. 1-2).

    Fits preference = σ(θ + φ·tanh(Δ/std Δ)) by maximum likelihood with a weak ridge on φ and returns σ(θ): the win
    rate were both responses equally long. AlpacaEval's per-instruction term is left out: its weights come from many
    models' annotations of its own instructions. The standard error is the sandwich estimate with prompts as clusters.

    Args:
        preferences_N: 0..1, the probability that the judge prefers the policy's response.
        length_differences_N: length of the policy's response minus the other's, in any unit.
        prompts_N: number of the prompt of each comparison.
    """
    wins = np.asarray(preferences_N, np.float64)
    differences = np.asarray(length_differences_N, np.float64)
    prompts = np.asarray(prompts_N)
    spread = differences.std()
    features = np.stack([np.ones_like(wins), np.tanh(differences / spread) if spread > 0 else 0 * wins], axis=1)
    ridge = np.array([0.0, 1e-5])

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = features @ theta
        value = np.logaddexp(0.0, z) - wins * z
        gradient = features.T @ (1 / (1 + np.exp(-z)) - wins)
        return float(value.mean() + ridge @ theta**2), gradient / len(wins) + 2 * ridge * theta

    theta = minimize(objective, np.zeros(2), jac=True, method="BFGS").x
    rates = 1 / (1 + np.exp(-features @ theta))
    hessian = (features * (rates * (1 - rates))[:, None]).T @ features + 2 * len(wins) * np.diag(ridge)
    hessian += 1e-12 * np.eye(2)
    scores = features * (wins - rates)[:, None]
    clusters = np.zeros((int(prompts.max()) + 1, 2))
    np.add.at(clusters, prompts, scores)
    inverse = np.linalg.inv(hessian)
    covariance = inverse @ (clusters.T @ clusters) @ inverse
    rate = 1 / (1 + np.exp(-theta[0]))
    return Mean(float(rate), float(rate * (1 - rate) * np.sqrt(covariance[0, 0])), len(np.unique(prompts)))
