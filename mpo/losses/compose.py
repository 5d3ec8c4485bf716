"""A loss put together by configuration: implicit reward × bins × contrast, without code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from torch import Tensor

from mpo.errors import ConfigError
from mpo.losses import rewards
from mpo.losses.base import ANY_BINS, ORDERED_BINS, TWO_SIDES, Loss, check_not_negative, check_positive
from mpo.losses.contrasts import (
    Merge,
    bin_plackett_luce,
    hinge,
    negative_log_sigmoid,
    pairwise,
    pointwise,
    soft_target,
    softmax_scores,
)
from mpo.losses.inputs import LossInputs
from mpo.losses.set_level import Deviation, score_deviation
from mpo.partition import Shape


class Reward(Enum):
    """Implicit reward, see ``mpo.losses.rewards``."""

    log_ratio = "log_ratio"
    summed_logp = "summed_logp"
    mean_logp = "mean_logp"
    likelihood = "likelihood"
    log_odds = "log_odds"


class Contrast(Enum):
    """Contrast, see ``mpo.losses.contrasts``."""

    bin_plackett_luce = "bin_plackett_luce"
    pairwise_mean = "pairwise_mean"
    pairwise_sum = "pairwise_sum"
    pairwise_merged = "pairwise_merged"
    soft_target = "soft_target"
    pointwise = "pointwise"


class Link(Enum):
    """What a pairwise contrast makes of z_i − z_j, or a pointwise one of ±z_i."""

    logistic = "logistic"  # −log σ(x)
    hinge = "hinge"  # max(0, 1 − x)


_REWARDS = {
    Reward.log_ratio: rewards.log_ratio,
    Reward.summed_logp: rewards.summed_logp,
    Reward.mean_logp: rewards.mean_logp,
    Reward.likelihood: rewards.likelihood,
    Reward.log_odds: rewards.log_odds,
}
_LINKS = {
    Link.logistic: negative_log_sigmoid,
    Link.hinge: hinge,
}
_MERGES = {
    Contrast.pairwise_mean: Merge.mean,
    Contrast.pairwise_sum: Merge.sum,
    Contrast.pairwise_merged: Merge.merged,
}


@dataclass(frozen=True)
class Compose(Loss):
    """contrast(z, bins) with z_i = β·reward_i + α·d_i + length_alpha·n_i − margin·[bin_i = 0].

    Attributes:
        reward: implicit reward; only ``log_ratio`` needs the reference.
        contrast: ``soft_target`` aims at softmax(S/τ) and reads no bins; ``pointwise`` is
            mean_i link(±z_i), + for bin 0 and − for the others.
        link: of pairwise and pointwise contrasts; the others have none to choose.
        beta: factor of the reward.
        margin: by how much bin 0 must lead, γ of SimPO.
        alpha: weight of the score's deviation, per unit of score (W-MPO).
        deviation: d_i.
        length_alpha: added a token, α of R-DPO.
        tau: temperature of the soft target.
    """

    reward: Reward = Reward.log_ratio
    contrast: Contrast = Contrast.bin_plackett_luce
    link: Link = Link.logistic
    beta: float = 1.0
    margin: float = 0.0
    alpha: float = 0.0
    deviation: Deviation = Deviation.absolute
    length_alpha: float = 0.0
    tau: float = 1.0
    fits: ClassVar[frozenset[Shape]] = ORDERED_BINS

    def __post_init__(self) -> None:
        for name in ("beta", "tau"):
            check_positive(name, getattr(self, name))
        for name in ("margin", "alpha", "length_alpha"):
            check_not_negative(name, getattr(self, name))
        if self.link is not Link.logistic and self.contrast in (Contrast.bin_plackett_luce, Contrast.soft_target):
            what = f"contrast {self.contrast.value} has no link, {self.link.value} would do nothing"
            raise ConfigError(what, "loss.link", "leave it out, or choose a pairwise contrast")
        # What other losses declare for their class depends on the fields here.
        declared = {
            "needs_reference": self.reward is Reward.log_ratio,
            "needs_sides": self.contrast is not Contrast.soft_target,
            "fits": {Contrast.soft_target: ANY_BINS, Contrast.pointwise: TWO_SIDES}.get(self.contrast, ORDERED_BINS),
        }
        for name, value in declared.items():
            object.__setattr__(self, name, value)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * _REWARDS[self.reward](inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        bins_BK = inputs.bins_BK
        z_BK = self.implicit_reward(inputs) + self.alpha * score_deviation(inputs, self.deviation)
        z_BK = z_BK + self.length_alpha * inputs.lengths_BK - self.margin * (bins_BK == 0).to(z_BK.dtype)
        if self.contrast is Contrast.bin_plackett_luce:
            return bin_plackett_luce(z_BK, bins_BK)
        if self.contrast is Contrast.soft_target:
            kept_BK = bins_BK >= 0
            return soft_target(z_BK, softmax_scores(inputs.scores_BK, kept_BK, self.tau), kept_BK)
        if self.contrast is Contrast.pointwise:
            accepted_BK, rejected_BK = (bins_BK == 0).to(z_BK.dtype), (bins_BK > 0).to(z_BK.dtype)
            return pointwise(z_BK, accepted_BK, rejected_BK, bins_BK >= 0, _LINKS[self.link])
        return pairwise(z_BK, bins_BK, _LINKS[self.link], _MERGES[self.contrast])
