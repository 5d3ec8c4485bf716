"""Set-level losses of the MPO paper ("Multi-Preference Optimization", arXiv 2412.04628)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from mpo.losses.base import ORDERED_BINS, Loss, check_not_negative, check_positive
from mpo.losses.contrasts import bin_plackett_luce
from mpo.losses.inputs import LossInputs, set_mean
from mpo.losses.rewards import log_ratio, mean_logp
from mpo.partition import Shape


class Deviation(Enum):
    """How far a score is from the set's mean S̄, taken over the responses that the partition keeps."""

    absolute = "absolute"  # |S_i − S̄|, MPO eq. 6-8 and appendix K
    signed = "signed"  # S_i − S̄, MPO appendix D


def score_deviation(inputs: LossInputs, deviation: Deviation) -> Tensor:
    """d_i of MPO eq. 6, [B,K], 0 for dropped responses."""
    kept_BK = inputs.bins_BK >= 0
    distance_BK = inputs.scores_BK - set_mean(inputs.scores_BK, kept_BK)[:, None]
    distance_BK = distance_BK.abs() if deviation is Deviation.absolute else distance_BK
    return torch.where(kept_BK, distance_BK, torch.zeros_like(distance_BK))


@dataclass(frozen=True)
class MPO(Loss):
    """lse_{P∪N}(βr) − lse_P(βr) (MPO eq. 4-5, algorithm 1)."""

    beta: float = 0.01
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * log_ratio(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        return bin_plackett_luce(self.implicit_reward(inputs), inputs.bins_BK)


@dataclass(frozen=True)
class MPO1vsK(MPO):
    """MPO with the best response accepted and all others rejected (MPO tab. 1)."""

    default_partition: ClassVar[str] = "best_vs_rest"


@dataclass(frozen=True)
class WMPO(MPO):
    """MPO on z_i = βr_i + α·d_i: responses far from the mean score weigh e^{αd} (MPO eq. 6-8, appendices D and K).

    Attributes:
        alpha: per unit of score; MPO's appendix J says 10, its figure 13 finds 0.1 best.
        deviation: d_i.
    """

    alpha: float = 0.1
    deviation: Deviation = Deviation.absolute

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("alpha", self.alpha)

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BK = self.implicit_reward(inputs) + self.alpha * score_deviation(inputs, self.deviation)
        return bin_plackett_luce(z_BK, inputs.bins_BK)

    def extra_metrics(self, inputs: LossInputs) -> dict[str, Tensor]:
        """``weight_max`` and ``weight_mean`` of e^{αd} over the kept responses, float64 (e^{10·9} passes float32)."""
        kept_BK = inputs.bins_BK >= 0
        weight_BK = (self.alpha * score_deviation(inputs, self.deviation).double()).exp() * kept_BK
        return {"weight_max": weight_BK.amax(-1), "weight_mean": set_mean(weight_BK, kept_BK)}


@dataclass(frozen=True)
class MPORefFree(Loss):
    """lse(z_P − γ, z_N) − lse(z_P − γ) with z_i = β·l_i/n_i; at 1-vs-1 exactly SimPO (MPO A.2, fig. 9)."""

    beta: float = 2.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)
        check_not_negative("gamma", self.gamma)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * mean_logp(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BK = self.implicit_reward(inputs)
        margin_BK = self.gamma * (inputs.bins_BK == 0).to(z_BK.dtype)
        return bin_plackett_luce(z_BK - margin_BK, inputs.bins_BK)


@dataclass(frozen=True)
class KBinMPO(MPO):
    """Σ_{b<B} [ lse_{bins ≥ b}(βr) − lse_{bin b}(βr) ] over bins ordered by score (MPO fig. 7, hybrids)."""

    default_partition: ClassVar[str] = "k_bin"
    fits: ClassVar[frozenset[Shape]] = ORDERED_BINS


@dataclass(frozen=True)
class PlackettLuce(KBinMPO):
    """Σ_i [ lse_{j ≥ i}(βr_(j)) − βr_(i) ] in the order of the scores, tied scores in one bin (MPO 3.2)."""

    default_partition: ClassVar[str] = "ranks"
