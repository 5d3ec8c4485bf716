"""Kahneman-Tversky optimisation (arXiv 2402.01306)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpo.losses.base import Loss, check_not_negative, check_positive
from mpo.losses.contrasts import miss_probability, pointwise
from mpo.losses.inputs import LossInputs, require
from mpo.losses.rewards import log_ratio


@dataclass(frozen=True)
class KTO(Loss):
    """(1/K)[ Σ_P λ_D (1 − σ(βr_i − βz)) + Σ_N λ_U (1 − σ(βz − βr_i)) ], z = max(0, mismatched log-ratio).

    No gradient flows through z. ``desirable_weight`` is λ_D, ``undesirable_weight`` λ_U.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    needs_reference: ClassVar[bool] = True
    needs_mismatched_kl: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)
        check_not_negative("desirable_weight", self.desirable_weight)
        check_not_negative("undesirable_weight", self.undesirable_weight)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * log_ratio(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        r_BK, bins_BK = log_ratio(inputs), inputs.bins_BK
        kl_reference_point = torch.clamp(require(inputs.mismatched_log_ratio, "mismatched_log_ratio").detach(), min=0)
        desired_BK = self.desirable_weight * (bins_BK == 0).to(r_BK.dtype)
        undesired_BK = self.undesirable_weight * (bins_BK > 0).to(r_BK.dtype)
        z_BK = self.beta * (r_BK - kl_reference_point.to(r_BK.dtype))
        return pointwise(z_BK, desired_BK, undesired_BK, bins_BK >= 0, miss_probability)
