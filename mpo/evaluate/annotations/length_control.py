"""Length-controlled win rates of several models at once, after AlpacaEval 2 (arXiv 2404.04475).

P(the judge prefers model m's answer to instruction x) = σ(θ_m + φ·tanh(Δ/std Δ) + δ_x), Δ the length of the model's
answer minus the baseline's, its standard deviation taken over the model's own comparisons. Three choices differ from
AlpacaEval's fit, which takes φ and a weight of δ from each model alone, beside rows of two further models (the baseline
asked to be verbose or concise), and δ from a file about its own instructions:

- φ is the judge's and so one for all models. Of a weak model nearly all answers are shorter than the baseline's: its
  own comparisons hardly tell the effect of length from its quality.
- δ_x is a normal random effect that all models share, integrated out by Gauss-Hermite quadrature; its standard
  deviation is estimated with the rest. Where no instruction has two models it is zero.
- φ has a normal prior around zero, :data:`LENGTH_PRIOR`, in the place of those two models' rows.

Preferences between 0 and 1 enter the log-likelihood as they are, y·z − log(1 + e^z); the estimated standard deviation
of the difficulties then errs low, and is often 0 with two models. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import minimize

LENGTH_PRIOR = 0.5
"""Standard deviation of φ's prior: a judge that prefers the longer of two equally good answers, far apart in length, in
more than σ(1) = 73 of 100 is two standard deviations away."""
DIFFICULTY_PRIOR = 1.0
"""Scale of the half-normal prior of the difficulties' standard deviation; it matters for a handful of instructions."""
QUALITY_PRIOR = 10.0
"""Standard deviation of θ's prior: it keeps a model that never wins finite."""
_NODES = 21
_STEP = 1e-5


@dataclass(frozen=True)
class Comparisons:
    """N comparisons of M models with one baseline by one judge.

    Attributes:
        models_N: number of the model, 0 to M − 1, each at least once.
        instructions_N: number of the instruction.
        wins_N: 0..1, how far the judge prefers the model's answer.
        differences_N: length of the model's answer minus the baseline's, in any unit.
        weights_N: 1 over how often the judge has seen this model on this instruction.
    """

    models_N: np.ndarray
    instructions_N: np.ndarray
    wins_N: np.ndarray
    differences_N: np.ndarray
    weights_N: np.ndarray


@dataclass(frozen=True)
class LengthControl:
    """What was fitted.

    Attributes:
        rates_M: win rate (0..1) at no difference in length, over the distribution of difficulties.
        errors_M: its standard error; instructions are independent draws, all comparisons on one are not.
        judge_errors_M: its standard error were the judge alone asked again on the same answers; NaN where unknown.
        length_effect, length_effect_error: φ in log-odds.
        difficulty: standard deviation of δ in log-odds.
        joint: whether a difficulty could be estimated.
    """

    rates_M: np.ndarray
    errors_M: np.ndarray
    judge_errors_M: np.ndarray
    length_effect: float
    length_effect_error: float
    difficulty: float
    joint: bool


def control_length(comparisons: Comparisons, noise_M: np.ndarray) -> LengthControl:
    """Fit all models together.

    Args:
        noise_M: variance of a win (0..1) between repeated judgements of the same pair, by model; NaN where unknown.
    """
    likelihood = _Likelihood(comparisons)
    parameters, inverse = likelihood.fit()
    quality_M, effect, spread = parameters[:-2], float(parameters[-2]), abs(float(parameters[-1]))
    points_MQ = _sigmoid(quality_M[:, None] + parameters[-1] * likelihood.nodes_Q)
    slopes_MQ = points_MQ * (1 - points_MQ)
    count = len(quality_M)
    rates_M, errors_M, judge_errors_M = points_MQ @ likelihood.shares_Q, np.empty(count), np.empty(count)
    for m in range(count):
        gradient = np.zeros_like(parameters)
        gradient[m] = slopes_MQ[m] @ likelihood.shares_Q
        gradient[-1] = slopes_MQ[m] @ (likelihood.shares_Q * likelihood.nodes_Q)
        by_instruction, by_comparison_N = likelihood.influence(parameters, inverse @ gradient)
        errors_M[m] = _root_of_squares(by_instruction)
        noise_N = np.where(np.isnan(noise_M), 0.0, noise_M)[likelihood.models_N]
        judge_errors_M[m] = np.sqrt((by_comparison_N**2) @ noise_N) if not np.isnan(noise_M[m]) else np.nan
    by_instruction, _ = likelihood.influence(parameters, inverse[:, -2])
    error = _root_of_squares(by_instruction)
    return LengthControl(rates_M, errors_M, judge_errors_M, effect, error, spread, likelihood.joint)


class _Likelihood:
    """Comparisons sorted by instruction; parameters are θ of each model, φ and the difficulties' standard deviation."""

    def __init__(self, comparisons: Comparisons) -> None:
        order_N = np.argsort(comparisons.instructions_N, kind="stable")
        instructions_N = comparisons.instructions_N[order_N]
        self.models_N = comparisons.models_N[order_N]
        self.wins_N, self.weights_N = comparisons.wins_N[order_N], comparisons.weights_N[order_N]
        self._count = int(self.models_N.max()) + 1
        self.lengths_N = _standardised(comparisons.differences_N[order_N], self.models_N, self._count)
        first_N = np.r_[True, instructions_N[1:] != instructions_N[:-1]]
        self._starts_X, self._rows_N = np.flatnonzero(first_N), np.cumsum(first_N) - 1
        pairs = np.unique(np.stack([self._rows_N, self.models_N]), axis=1)
        self.joint = bool(np.bincount(pairs[0]).max() > 1)
        self.nodes_Q, weights_Q = hermegauss(_NODES if self.joint else 1)
        self.shares_Q = weights_Q / weights_Q.sum()
        self._precision = 1 / np.r_[np.full(self._count, QUALITY_PRIOR), LENGTH_PRIOR, DIFFICULTY_PRIOR] ** 2

    def fit(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters of the highest posterior and the inverse of the Hessian there."""
        start = np.zeros(self._count + 2)
        start[-1] = 0.5 if self.joint else 0.0
        parameters = minimize(self._objective, start, jac=True, method="BFGS").x
        # BFGS stops where its line search can tell no more; a Newton step or two goes on to the last digits.
        for _ in range(2):
            inverse = np.linalg.pinv(self._hessian(parameters), hermitian=True)
            parameters = parameters - inverse @ self._objective(parameters)[1]
        return parameters, inverse

    def influence(self, parameters: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivative of (parameters · gradient) by each instruction's weight, and by each comparison's ``wins_N``.

        Args:
            direction: inverse Hessian times that gradient.
        """
        z_NQ, posterior_XQ, _ = self._posterior(parameters)
        along_NQ = (direction[self.models_N] + direction[-2] * self.lengths_N)[:, None] + direction[-1] * self.nodes_Q
        scores_XQ = self._sum(self.weights_N[:, None] * (self.wins_N[:, None] - _sigmoid(z_NQ)) * along_NQ)
        scores_X = (posterior_XQ * scores_XQ).sum(axis=1)
        deviations_NQ = (scores_XQ - scores_X[:, None])[self._rows_N]
        by_wins_N = (posterior_XQ[self._rows_N] * (along_NQ + z_NQ * deviations_NQ)).sum(axis=1)
        return scores_X, self.weights_N * by_wins_N

    def _posterior(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Log-odds at each node, each instruction's posterior over the nodes, and the log-likelihood."""
        linear_N = parameters[self.models_N] + parameters[-2] * self.lengths_N
        z_NQ = linear_N[:, None] + parameters[-1] * self.nodes_Q
        logs_NQ = self.wins_N[:, None] * z_NQ - np.logaddexp(0.0, z_NQ)
        joint_XQ = self._sum(self.weights_N[:, None] * logs_NQ) + np.log(self.shares_Q)
        total_X = np.logaddexp.reduce(joint_XQ, axis=1)
        return z_NQ, np.exp(joint_XQ - total_X[:, None]), float(total_X.sum())

    def _objective(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the log-posterior, and its gradient."""
        z_NQ, posterior_XQ, value = self._posterior(parameters)
        errors_NQ = self.weights_N[:, None] * (self.wins_N[:, None] - _sigmoid(z_NQ)) * posterior_XQ[self._rows_N]
        errors_N = errors_NQ.sum(axis=1)
        by_model_M = np.bincount(self.models_N, errors_N, self._count)
        gradient = np.r_[by_model_M, errors_N @ self.lengths_N, (errors_NQ @ self.nodes_Q).sum()]
        prior = self._precision * parameters
        return float(prior @ parameters / 2 - value), prior - gradient

    def _hessian(self, parameters: np.ndarray) -> np.ndarray:
        columns = []
        for step in _STEP * np.eye(len(parameters)):
            ahead, behind = self._objective(parameters + step)[1], self._objective(parameters - step)[1]
            columns.append((ahead - behind) / (2 * _STEP))
        hessian = np.stack(columns)
        return (hessian + hessian.T) / 2

    def _sum(self, values_NQ: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values_NQ, self._starts_X, axis=0)


def _standardised(differences_N: np.ndarray, models_N: np.ndarray, count: int) -> np.ndarray:
    """tanh of each difference over its model's standard deviation; 0 where a model's differences are all the same."""
    scaled_N = np.zeros(len(differences_N))
    for m in range(count):
        own_N = models_N == m
        spread = differences_N[own_N].std(ddof=1) if own_N.sum() > 1 else 0.0
        if spread > 0:
            scaled_N[own_N] = np.tanh(differences_N[own_N] / spread)
    return scaled_N


def _root_of_squares(influence_X: np.ndarray) -> float:
    count = len(influence_X)
    return float(np.sqrt((influence_X**2).sum() * count / (count - 1))) if count > 1 else float("nan")


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(z / 2)) / 2
