"""DPO and its relatives: contrasts of pairs, bin_i < bin_j.

Where a partition gives more than one pair, all but SPPO and BCO take the mean over the pairs; ORPO's likelihood term,
SPPO and BCO take the mean over each side. One pair is the published loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpo.errors import ConfigError
from mpo.losses.base import ORDERED_BINS, TWO_SIDES, Loss, check_not_negative, check_positive
from mpo.losses.contrasts import negative_log_sigmoid, pairwise
from mpo.losses.inputs import LossInputs, require, set_mean
from mpo.losses.rewards import log_odds, log_ratio, mean_logp
from mpo.partition import Shape


@dataclass(frozen=True)
class LogRatioLoss(Loss):
    """What losses on pairs of βr share; β is 0.1 unless given."""

    beta: float = 0.1
    needs_reference: ClassVar[bool] = True
    default_partition: ClassVar[str] = "best_vs_worst"
    fits: ClassVar[frozenset[Shape]] = ORDERED_BINS

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * log_ratio(inputs)


@dataclass(frozen=True)
class DPO(LogRatioLoss):
    """−log σ(β(r_w − r_b)) (arXiv 2305.18290; MPO eq. 2).

    ``label_smoothing`` ε gives −(1−ε) log σ(h) − ε log σ(−h) (conservative DPO).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 0.5:
            what = f"label_smoothing is {self.label_smoothing}"
            raise ConfigError(what, "loss.label_smoothing", "give a share in [0, 0.5)")

    def per_set(self, inputs: LossInputs) -> Tensor:
        return pairwise(self.implicit_reward(inputs), inputs.bins_BK, self._link)

    def _link(self, gap: Tensor) -> Tensor:
        if self.label_smoothing == 0:
            return negative_log_sigmoid(gap)
        right = (1 - self.label_smoothing) * negative_log_sigmoid(gap)
        return right + self.label_smoothing * negative_log_sigmoid(-gap)


@dataclass(frozen=True)
class WPO(DPO):
    """min(1, ω_w ω_b)·dpo, log ω = (1/n) Σ_t [log π_θ(y_t|…) − log Σ_v π_θ(v|…)²] (WPO, arXiv 2406.11827, eq. 2).

    Pairs are weighted by their likelihood under the current policy. The weight has no gradient.
    """

    needs_wpo_weights: ClassVar[bool] = True
    fits: ClassVar[frozenset[Shape]] = frozenset({Shape.pair})

    def per_set(self, inputs: LossInputs) -> Tensor:
        return self._weight(inputs) * super().per_set(inputs)

    def extra_metrics(self, inputs: LossInputs) -> dict[str, Tensor]:
        """``weight``: of the pair."""
        return {"weight": self._weight(inputs)}

    def _weight(self, inputs: LossInputs) -> Tensor:
        log_weight_BK = require(inputs.wpo_log_weights_BK, "wpo_log_weights_BK") / inputs.lengths_BK
        of_pair_B = set_mean(log_weight_BK, inputs.bins_BK == 0) + set_mean(log_weight_BK, inputs.bins_BK > 0)
        return of_pair_B.clamp(max=0.0).exp()


@dataclass(frozen=True)
class DPOAllPairs(DPO):
    """Mean DPO loss over all pairs S_i > S_j ("NC2-DPO", MPO appendix I)."""

    default_partition: ClassVar[str] = "ranks"


@dataclass(frozen=True)
class DPOCrossPairs(DPO):
    """Mean DPO loss over accepted × rejected (MPO 7.1)."""

    default_partition: ClassVar[str] = "mean"


@dataclass(frozen=True)
class IPO(LogRatioLoss):
    """(r_w − r_b − 1/(2β))², on summed log-ratios (arXiv 2310.12036)."""

    def per_set(self, inputs: LossInputs) -> Tensor:
        return pairwise(log_ratio(inputs), inputs.bins_BK, lambda gap: (gap - 0.5 / self.beta) ** 2)


@dataclass(frozen=True)
class DPOP(LogRatioLoss):
    """−log σ(β(r_w − r_b − λ·max(0, −r_w))): DPO that does not pay for a less likely w (arXiv 2402.13228).

    ``lam`` is λ. At r_w = 0, where a run starts, the penalty has no gradient.
    """

    lam: float = 50.0
    fits: ClassVar[frozenset[Shape]] = TWO_SIDES

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("lam", self.lam)

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BK = self.implicit_reward(inputs)
        penalty_BK = self.lam * torch.relu(-z_BK) * (inputs.bins_BK == 0)
        return pairwise(z_BK - penalty_BK, inputs.bins_BK)


@dataclass(frozen=True)
class BCOPair(LogRatioLoss):
    """−log σ(βr_w) − log σ(−βr_b): each side classified for itself, the mean of each (BCO, arXiv 2404.04656).

    Without BCO's shift of the rewards by their running mean, as in TRL's ``bco_pair``.
    """

    fits: ClassVar[frozenset[Shape]] = TWO_SIDES

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BK, bins_BK = self.implicit_reward(inputs), inputs.bins_BK
        accepted_B = set_mean(negative_log_sigmoid(z_BK), bins_BK == 0)
        return accepted_B + set_mean(negative_log_sigmoid(-z_BK), bins_BK > 0)


@dataclass(frozen=True)
class RDPO(LogRatioLoss):
    """−log σ(β(r_w − r_b) + α(n_w − n_b)): DPO with a length penalty of α a token (arXiv 2403.19159)."""

    alpha: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("alpha", self.alpha)

    def per_set(self, inputs: LossInputs) -> Tensor:
        return pairwise(self.implicit_reward(inputs) + self.alpha * inputs.lengths_BK, inputs.bins_BK)


@dataclass(frozen=True)
class SimPO(Loss):
    """−log σ(β(l_w/n_w − l_b/n_b) − γ) (arXiv 2405.14734)."""

    beta: float = 2.0
    gamma: float = 0.5
    default_partition: ClassVar[str] = "best_vs_worst"
    fits: ClassVar[frozenset[Shape]] = ORDERED_BINS

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)
        check_not_negative("gamma", self.gamma)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * mean_logp(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BK = self.implicit_reward(inputs)
        return pairwise(z_BK, inputs.bins_BK, lambda gap: negative_log_sigmoid(gap - self.gamma))


@dataclass(frozen=True)
class ORPO(Loss):
    """−l_w/n_w − λ log σ(logit p_w − logit p_b) (arXiv 2403.07691); ``lam`` is λ."""

    lam: float = 0.1
    default_partition: ClassVar[str] = "best_vs_worst"

    def __post_init__(self) -> None:
        check_not_negative("lam", self.lam)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return log_odds(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        contrast_B = pairwise(self.implicit_reward(inputs), inputs.bins_BK)
        return self.lam * contrast_B - set_mean(mean_logp(inputs), inputs.bins_BK == 0)


@dataclass(frozen=True)
class SPPOHard(Loss):
    """(r_w − 1/(2β))² + (r_b + 1/(2β))² (arXiv 2405.00675)."""

    beta: float = 0.001
    needs_reference: ClassVar[bool] = True
    default_partition: ClassVar[str] = "best_vs_worst"

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * log_ratio(inputs)

    def win_rates(self, inputs: LossInputs) -> Tensor:
        """Win rate that each response is trained towards, [B,K]: the accepted ones win always, the others never."""
        return (inputs.bins_BK == 0).to(inputs.policy_logps_BK.dtype)

    def per_set(self, inputs: LossInputs) -> Tensor:
        error_BK = (log_ratio(inputs) - (self.win_rates(inputs) - 0.5) / self.beta) ** 2
        return set_mean(error_BK, inputs.bins_BK == 0) + set_mean(error_BK, inputs.bins_BK > 0)


@dataclass(frozen=True)
class SPPO(SPPOHard):
    """(r_w − (1/β)(P̂_w − ½))² + (r_b − (1/β)(P̂_b − ½))², the best and the worst response against their win rates.

    P̂_i = mean_j σ(S_i − S_j) over all sampled responses, i included and dropped ones too: the loss of the published
    code of arXiv 2405.00675, which MPO's table 3 compares with. Where a side has several responses, their mean.
    """

    needs_win_rates: ClassVar[bool] = True

    def win_rates(self, inputs: LossInputs) -> Tensor:
        return require(inputs.win_rates_BK, "win_rates_BK")
