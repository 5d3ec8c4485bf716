"""Pair-wise and list-wise losses of MPPO (arXiv 2412.15244): on the likelihood p, no reference, no hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mpo.losses.base import ORDERED_BINS, TWO_SIDES, Loss
from mpo.losses.contrasts import Merge, bin_plackett_luce, pairwise
from mpo.losses.inputs import LossInputs
from mpo.losses.rewards import likelihood
from mpo.partition import Shape


@dataclass(frozen=True)
class _LikelihoodPairs(Loss):
    merge: ClassVar[Merge] = Merge.sum
    default_partition: ClassVar[str] = "best_vs_rest"
    fits: ClassVar[frozenset[Shape]] = TWO_SIDES

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return likelihood(inputs)

    def per_set(self, inputs: LossInputs) -> Tensor:
        return pairwise(likelihood(inputs), inputs.bins_BK, merge=self.merge)


@dataclass(frozen=True)
class PairSingle(_LikelihoodPairs):
    """−log σ(p_w − p_l), l drawn from the rest (MPPO eq. 8)."""

    default_partition: ClassVar[str] = "best_vs_random"


@dataclass(frozen=True)
class PairMNS(_LikelihoodPairs):
    """−Σ_{i≠w} log σ(p_w − p_i) (MPPO eq. 9)."""


@dataclass(frozen=True)
class PairMNM(_LikelihoodPairs):
    """−log σ((K−1)·p_w − Σ_{i≠w} p_i) (MPPO eq. 10)."""

    merge: ClassVar[Merge] = Merge.merged


@dataclass(frozen=True)
class PairMCS(_LikelihoodPairs):
    """−Σ_{S_i > S_j} log σ(p_i − p_j) (MPPO eq. 11)."""

    default_partition: ClassVar[str] = "ranks"
    fits: ClassVar[frozenset[Shape]] = ORDERED_BINS


@dataclass(frozen=True)
class PairMCM(PairMCS):
    """−log σ(Σ_{S_i > S_j} (p_i − p_j)) (MPPO eq. 12)."""

    merge: ClassVar[Merge] = Merge.merged


@dataclass(frozen=True)
class ListMLE(_LikelihoodPairs):
    """Plackett-Luce on p in the order of the scores, tied scores in one bin (MPPO eq. 13)."""

    default_partition: ClassVar[str] = "ranks"
    fits: ClassVar[frozenset[Shape]] = ORDERED_BINS

    def per_set(self, inputs: LossInputs) -> Tensor:
        return bin_plackett_luce(likelihood(inputs), inputs.bins_BK)
