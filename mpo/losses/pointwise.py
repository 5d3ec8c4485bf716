"""Losses that contrast nothing and use every set: SFT, and MPPO's Point-CE and Point-MSE (arXiv 2412.15244)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpo.losses.base import ANY_BINS, Loss, check_positive
from mpo.losses.contrasts import pointwise
from mpo.losses.inputs import LossInputs, of_best, score_shares, set_mean
from mpo.losses.rewards import likelihood, log_odds, mean_logp
from mpo.partition import Shape


@dataclass(frozen=True)
class SFT(Loss):
    """−l_w/n_w: supervised fine-tuning on w, the best response by score (of ties the first) of the set's best bin.

    With two-sided bins that is the best accepted response; where a partition accepts none, still the best one.
    """

    contrasts: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False
    default_partition: ClassVar[str] = "best_vs_rest"
    fits: ClassVar[frozenset[Shape]] = ANY_BINS

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return mean_logp(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        return -of_best(mean_logp(inputs), inputs)


@dataclass(frozen=True)
class _ScoreRegression(Loss):
    score_max: float = 10.0
    contrasts: ClassVar[bool] = False
    default_partition: ClassVar[str] = "everything"
    fits: ClassVar[frozenset[Shape]] = frozenset({Shape.everything})

    def __post_init__(self) -> None:
        check_positive("score_max", self.score_max)

    @property
    def score_range(self) -> tuple[float, float]:
        return 0.0, self.score_max

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return likelihood(inputs)

    def target(self, inputs: LossInputs) -> Tensor:
        """s_i = S_i / score_max, [B,K]; raises DataError as :func:`mpo.losses.inputs.score_shares` does."""
        return score_shares(inputs, self.score_max)


@dataclass(frozen=True)
class PointCE(_ScoreRegression):
    """−mean_i [ s_i log p_i + (1 − s_i) log(1 − p_i) ], s_i = S_i / score_max (MPPO eq. 6)."""

    def per_set(self, inputs: LossInputs) -> Tensor:
        target_BK = self.target(inputs)
        return pointwise(log_odds(inputs), target_BK, 1 - target_BK, inputs.bins_BK >= 0)


@dataclass(frozen=True)
class PointMSE(_ScoreRegression):
    """mean_i (s_i − p_i)², s_i = S_i / score_max (MPPO eq. 7)."""

    def per_set(self, inputs: LossInputs) -> Tensor:
        error_BK = torch.square(self.target(inputs) - likelihood(inputs))
        return set_mean(error_BK, inputs.bins_BK >= 0)
