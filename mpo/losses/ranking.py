"""Learning to rank: losses made after NDCG, on βr against gains 2^ψ − 1 with ψ_i = S_i / score_max."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpo.losses.base import ANY_BINS, check_positive
from mpo.losses.contrasts import Merge, differences, masked_logsumexp, negative_log_sigmoid, over_pairs
from mpo.losses.inputs import LossInputs, score_shares
from mpo.losses.pairwise import LogRatioLoss
from mpo.partition import Shape

SINKHORN_ROUNDS = 50
"""As many as its authors' code does at most. Always all: what one set gets must not depend on others of its batch."""


@dataclass(frozen=True)
class _GainLoss(LogRatioLoss):
    score_max: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("score_max", self.score_max)

    @property
    def score_range(self) -> tuple[float, float]:
        """Below 0 a gain would be a loss."""
        return 0.0, self.score_max

    def gains(self, inputs: LossInputs) -> Tensor:
        """2^ψ_i − 1 with ψ_i = S_i / score_max, [B,K]; 0 for dropped responses, whose scores are 0."""
        return torch.expm1(score_shares(inputs, self.score_max) * math.log(2))


@dataclass(frozen=True)
class LiPO(_GainLoss):
    """Σ_{S_i > S_j} Δ_ij · −log σ(β(r_i − r_j)), Δ_ij = |G_i − G_j| · |1/D(τ_i) − 1/D(τ_j)| (LiPO-λ, arXiv 2402.01878).

    G_i = 2^ψ_i − 1; D(τ) = log(1 + τ) with τ_i the rank of response i by βr, 1 the highest, of ties the first: so Δ
    has no gradient, and jumps where the policy changes the order.
    """

    default_partition: ClassVar[str] = "ranks"
    continuous: ClassVar[bool] = False

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BK = self.implicit_reward(inputs)
        kept_BK = inputs.bins_BK >= 0
        sorted_BK = torch.where(kept_BK, z_BK.detach(), torch.full_like(z_BK, -torch.inf))
        order_BK = sorted_BK.sort(dim=-1, descending=True, stable=True).indices
        rank_BK = order_BK.argsort(-1) + 1
        discount_BK = 1 / torch.log1p(rank_BK.to(z_BK.dtype))
        weight_BKK = differences(self.gains(inputs)).abs() * differences(discount_BK).abs()
        return over_pairs(weight_BKK * negative_log_sigmoid(differences(z_BK)), inputs.bins_BK, Merge.sum)


@dataclass(frozen=True)
class _NDCGLoss(_GainLoss):
    needs_sides: ClassVar[bool] = False
    default_partition: ClassVar[str] = "everything"
    fits: ClassVar[frozenset[Shape]] = ANY_BINS

    def ideal(self, inputs: LossInputs) -> Tensor:
        """DCG of the order of the scores, [B]: the largest there is."""
        sorted_BK = self.gains(inputs).sort(dim=-1, descending=True).values
        ideal_B = (sorted_BK / _log_rank(sorted_BK)).sum(-1)
        return torch.where(ideal_B > 0, ideal_B, torch.ones_like(ideal_B))


@dataclass(frozen=True)
class ApproxNDCG(_NDCGLoss):
    """−(1/Z) Σ_i G_i / log₂(1 + τ̂_i), τ̂_i = 1 + Σ_{j≠i} σ(−α·β(r_i − r_j)), Z the DCG of the scores' order.

    NDCG with smooth ranks, −1 at best (Qin, Liu and Li, "A general approximation framework for direct optimization of
    information retrieval measures", 2010, eq. 19-21); on log-ratios in arXiv 2410.04346, from whose code α is.
    """

    alpha: float = 25.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def per_set(self, inputs: LossInputs) -> Tensor:
        kept_BK = inputs.bins_BK >= 0
        ahead_BKK = torch.sigmoid(-self.alpha * differences(self.implicit_reward(inputs)))
        ahead_BKK = torch.where(kept_BK[:, None, :], ahead_BKK, torch.zeros_like(ahead_BKK))
        rank_BK = 0.5 + ahead_BKK.sum(-1)  # the half takes σ(0) of i itself to the 1 that ranks begin with
        rank_BK = torch.where(kept_BK, rank_BK, torch.ones_like(rank_BK))
        return -(self.gains(inputs) / torch.log2(1 + rank_BK)).sum(-1) / self.ideal(inputs)


@dataclass(frozen=True)
class NeuralNDCG(_NDCGLoss):
    """−(1/Z) Σ_i (P̂G)_i / log₂(1 + i), P̂ a smooth sort of βr, Z the DCG of the scores' order (arXiv 2102.07831).

    Row i of P̂ is softmax_j( ((K + 1 − 2i)·βr_j − Σ_k β|r_j − r_k|) / τ ) (NeuralSort, arXiv 1903.08850), then columns
    and rows are scaled by turns to sums of 1 (Sinkhorn). ``tau`` is τ. On log-ratios in arXiv 2410.04346.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("tau", self.tau)

    def per_set(self, inputs: LossInputs) -> Tensor:
        z_BK, kept_BK = self.implicit_reward(inputs), inputs.bins_BK >= 0
        share_BKK = _sinkhorn(_neural_sort(z_BK, kept_BK, self.tau), kept_BK)
        sorted_BK = (share_BKK * self.gains(inputs)[:, None, :]).sum(-1)
        return -(sorted_BK / _log_rank(sorted_BK)).sum(-1) / self.ideal(inputs)


def _log_rank(like_BK: Tensor) -> Tensor:
    """log₂(1 + i) for ranks i from 1, [K]."""
    return torch.log2(torch.arange(2, like_BK.shape[-1] + 2, dtype=like_BK.dtype, device=like_BK.device))


def _neural_sort(z_BK: Tensor, kept_BK: Tensor, tau: float) -> Tensor:
    """Logarithm of NeuralSort's rows before they are scaled, [B,K,K]: of rank i (second axis) and response j."""
    rank_K = torch.arange(1, z_BK.shape[-1] + 1, dtype=z_BK.dtype, device=z_BK.device)
    size_B11 = kept_BK.sum(-1)[:, None, None].to(z_BK.dtype)
    apart_BKK = differences(z_BK).abs()
    spread_BK = torch.where(kept_BK[:, None, :], apart_BKK, torch.zeros_like(apart_BKK)).sum(-1)
    return ((size_B11 + 1 - 2 * rank_K[:, None]) * z_BK[:, None, :] - spread_BK[:, None, :]) / tau


def _sinkhorn(logits_BKK: Tensor, kept_BK: Tensor) -> Tensor:
    """Doubly stochastic on the first ranks and the kept responses of each set, as many as those are; 0 elsewhere."""
    rank_K = torch.arange(kept_BK.shape[-1], device=kept_BK.device)
    rank_BK = rank_K < kept_BK.sum(-1, keepdim=True)
    there_BKK = rank_BK[:, :, None] & kept_BK[:, None, :]
    log_BKK = logits_BKK
    for axis in (-1, *(-2, -1) * SINKHORN_ROUNDS):  # the first makes NeuralSort's softmax of the logits
        if axis == -1:
            total_BKK = masked_logsumexp(log_BKK, there_BKK)[:, :, None]
        else:
            total_BKK = masked_logsumexp(log_BKK.transpose(1, 2), there_BKK.transpose(1, 2))[:, None, :]
        log_BKK = torch.where(there_BKK, log_BKK - total_BKK, torch.zeros_like(log_BKK))
    return torch.where(there_BKK, log_BKK.exp(), torch.zeros_like(log_BKK))
