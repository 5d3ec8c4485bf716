"""Reward-aware preference optimisation: the implicit reward's gap is fitted to the scores' gap."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor
from torch.nn.functional import logsigmoid

from mpo.losses.base import check_positive
from mpo.losses.contrasts import differences, over_pairs
from mpo.losses.inputs import LossInputs
from mpo.losses.pairwise import LogRatioLoss


class RewardDistance(Enum):
    """Between the gap of the implicit rewards, z = β(r_w − r_b), and that of the scores, a = η(S_w − S_b)."""

    backward_kl = "backward_kl"  # KL(Bernoulli σ(a) || Bernoulli σ(z))
    forward_kl = "forward_kl"  # KL(Bernoulli σ(z) || Bernoulli σ(a))
    squared = "squared"  # (z − a)²


@dataclass(frozen=True)
class RPO(LogRatioLoss):
    """Distance of β(r_w − r_b) from η(S_w − S_b) (reward-aware preference optimisation, arXiv 2406.11704, 2502.00203).

    Attributes:
        eta: η, per unit of score.
        distance: the backward KL of Nemotron-4, or one of the others of NeMo-Aligner (``rpo_fwd_kl``, ``rpo_sq``).
    """

    eta: float = 1.0
    distance: RewardDistance = RewardDistance.backward_kl

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("eta", self.eta)

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BKK = differences(self.implicit_reward(inputs))
        a_BKK = self.eta * differences(inputs.scores_BK)
        if self.distance is RewardDistance.squared:
            return over_pairs((z_BKK - a_BKK) ** 2, inputs.bins_BK)
        of_scores = self.distance is RewardDistance.backward_kl
        return over_pairs(_kl(a_BKK, z_BKK) if of_scores else _kl(z_BKK, a_BKK), inputs.bins_BK)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """KL(Bernoulli σ(first) || Bernoulli σ(second)), elementwise."""
    won = first.sigmoid() * (logsigmoid(first) - logsigmoid(second))
    return won + (-first).sigmoid() * (logsigmoid(-first) - logsigmoid(-second))
