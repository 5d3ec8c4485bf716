"""Losses that read the scores themselves and no bins beyond "dropped or not"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpo.losses.base import ANY_BINS, Loss, check_positive
from mpo.losses.contrasts import pointwise, soft_target, softmax_scores
from mpo.losses.inputs import LossInputs, set_mean, win_rates
from mpo.losses.rewards import log_ratio
from mpo.partition import Shape


@dataclass(frozen=True)
class _ScoreLoss(Loss):
    beta: float = 0.01
    needs_reference: ClassVar[bool] = True
    needs_sides: ClassVar[bool] = False
    default_partition: ClassVar[str] = "everything"
    fits: ClassVar[frozenset[Shape]] = ANY_BINS

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * log_ratio(inputs)


@dataclass(frozen=True)
class InfoNCA(_ScoreLoss):
    """−Σ softmax(S/τ)_i · log softmax(βr)_i (MPO eq. 3; arXiv 2402.05369)."""

    tau: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("tau", self.tau)

    def per_set(self, inputs: LossInputs) -> Tensor:
        kept_BK = inputs.bins_BK >= 0
        target_BK = softmax_scores(inputs.scores_BK, kept_BK, self.tau)
        return soft_target(self.implicit_reward(inputs), target_BK, kept_BK)


@dataclass(frozen=True)
class NCA(InfoNCA):
    """−Σ [ softmax(S/τ)_i log σ(βr_i) + (1/K) log σ(−βr_i) ] (arXiv 2402.05369)."""

    def per_set(self, inputs: LossInputs) -> Tensor:
        kept_BK = inputs.bins_BK >= 0
        z_BK = self.implicit_reward(inputs)
        # pointwise takes the mean over the set, the target is summed: hence K.
        target_BK = softmax_scores(inputs.scores_BK, kept_BK, self.tau) * kept_BK.sum(-1, keepdim=True)
        return pointwise(z_BK, target_BK, torch.ones_like(z_BK), kept_BK)


@dataclass(frozen=True)
class SPPOSoft(_ScoreLoss):
    """(1/K) Σ (r_i − (1/β)(P̂_i − ½))², P̂_i = mean_j σ(S_i − S_j), j = i included (arXiv 2405.00675)."""

    beta: float = 0.001

    def per_set(self, inputs: LossInputs) -> Tensor:
        kept_BK = inputs.bins_BK >= 0
        target_BK = (win_rates(inputs.scores_BK, kept_BK) - 0.5) / self.beta
        return set_mean((log_ratio(inputs) - target_BK) ** 2, kept_BK)
