"""Contrasts with a likelihood term, which keeps w, the best response, likely while the contrast pushes others away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpo.losses.base import ORDERED_BINS, Loss, check_not_negative, check_positive
from mpo.losses.contrasts import Merge, differences, over_pairs, pairwise
from mpo.losses.inputs import LossInputs, of_best
from mpo.losses.pairwise import LogRatioLoss
from mpo.losses.rewards import mean_logp, summed_logp
from mpo.partition import Shape

ROUNDING = 4
"""Machine epsilons that the rounding of l and of l/n may set two equal numbers apart."""


@dataclass(frozen=True)
class CPO(Loss):
    """−log σ(β(l_w − l_b)) − λ·l_w/n_w: DPO without a reference, and likelihood (arXiv 2401.08417).

    ``lam`` is λ; the likelihood is a mean over tokens, as in its authors' code. Of several pairs the mean.
    """

    beta: float = 0.1
    lam: float = 1.0
    default_partition: ClassVar[str] = "best_vs_worst"
    fits: ClassVar[frozenset[Shape]] = ORDERED_BINS

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)
        check_not_negative("lam", self.lam)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * summed_logp(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        contrast_B = pairwise(self.implicit_reward(inputs), inputs.bins_BK)
        return contrast_B - self.lam * of_best(mean_logp(inputs), inputs)


@dataclass(frozen=True)
class IRPO(LogRatioLoss):
    """−log σ(β(r_w − r_b)) − α·l_w/n_w: DPO and likelihood (iterative reasoning PO, arXiv 2404.19733)."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("alpha", self.alpha)

    def per_set(self, inputs: LossInputs) -> Tensor:
        contrast_B = pairwise(self.implicit_reward(inputs), inputs.bins_BK)
        return contrast_B - self.alpha * of_best(mean_logp(inputs), inputs)


@dataclass(frozen=True)
class RRHF(Loss):
    """Σ_{S_i > S_j} max(0, l_j/n_j − l_i/n_i) − l_w (arXiv 2304.05302).

    Where the two are equal up to rounding the slope is halfway between its sides'.
    """

    default_partition: ClassVar[str] = "ranks"
    fits: ClassVar[frozenset[Shape]] = ORDERED_BINS

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return mean_logp(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BK = mean_logp(inputs)
        gap_BKK, size_BK = differences(z_BK), z_BK.detach().abs()
        rounding_BKK = ROUNDING * torch.finfo(z_BK.dtype).eps * torch.maximum(size_BK[:, :, None], size_BK[:, None, :])
        apart_BKK = torch.where(gap_BKK.abs() > rounding_BKK, gap_BKK.abs(), torch.zeros_like(gap_BKK))
        ranking_B = over_pairs((apart_BKK - gap_BKK) / 2, inputs.bins_BK, Merge.sum)  # max(0, −x) = (|x| − x) / 2
        return ranking_B - of_best(summed_logp(inputs), inputs)
