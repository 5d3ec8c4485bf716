"""Contrasts: rewards and bins of a set to one number, each ``[B,K] -> [B]``, for any ragged K.

All are finite in value and gradient for finite rewards; a set without anything to contrast gives 0.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

from mpo.losses.inputs import set_mean

Link = Callable[[Tensor], Tensor]
"""Elementwise function of a reward difference (or of a signed reward), e.g. −log σ."""

_NOTHING = -1e30  # stands for log 0: finite, so that no inf − inf arises, yet exp of it is exactly 0


class Merge(Enum):
    """How the pairs of a set become one number."""

    mean = "mean"  # mean of the links
    sum = "sum"  # sum of the links
    merged = "merged"  # link of the summed differences


def negative_log_sigmoid(values: Tensor) -> Tensor:
    """−log σ(x)."""
    return -torch.nn.functional.logsigmoid(values)


def miss_probability(values: Tensor) -> Tensor:
    """1 − σ(x), as σ(−x)."""
    return torch.sigmoid(-values)


def hinge(values: Tensor) -> Tensor:
    """max(0, 1 − x) (SLiC, arXiv 2305.10425)."""
    return torch.relu(1 - values)


def masked_logsumexp(values: Tensor, where: Tensor) -> Tensor:
    """Log-sum-exp over the last axis of the marked entries; −1e30 where none is marked."""
    return torch.logsumexp(torch.where(where, values, torch.full_like(values, _NOTHING)), dim=-1)


def bin_plackett_luce(z_BK: Tensor, bins_BK: Tensor) -> Tensor:
    """Σ_b [ lse_{bins ≥ b}(z) − lse_{bin b}(z) ] over the bins of each set (MPO eq. 4-5 and fig. 7).

    Two bins are MPO, one bin a response is Plackett-Luce. Computed as Σ_b softplus(lse_{bins > b} − lse_{bin b}),
    which is the same without the cancellation when the loss is small.
    """
    bin_1B1 = torch.arange(bins_BK.shape[-1], device=bins_BK.device)[None, :, None]
    z_B1K, bins_B1K = z_BK[:, None, :], bins_BK[:, None, :]
    here_BBK, worse_BBK = bins_B1K == bin_1B1, bins_B1K > bin_1B1
    gap_BB = masked_logsumexp(z_B1K, here_BBK) - masked_logsumexp(z_B1K, worse_BBK)
    present_BB = here_BBK.any(-1) & worse_BBK.any(-1)
    return torch.where(present_BB, negative_log_sigmoid(gap_BB), torch.zeros_like(gap_BB)).sum(-1)


def better_pairs(bins_BK: Tensor) -> Tensor:
    """Bool [B,K,K]: whether 0 ≤ bin_i < bin_j, i in the second axis."""
    return (bins_BK[:, :, None] >= 0) & (bins_BK[:, :, None] < bins_BK[:, None, :])


def differences(values_BK: Tensor) -> Tensor:
    """x_i − x_j, [B,K,K], i in the second axis."""
    return values_BK[:, :, None] - values_BK[:, None, :]


def over_pairs(values_BKK: Tensor, bins_BK: Tensor, merge: Merge = Merge.mean) -> Tensor:
    """Mean or sum (not ``merged``) over all pairs with 0 ≤ bin_i < bin_j; 0 where there is none."""
    pair_BKK = better_pairs(bins_BK)
    total_B = torch.where(pair_BKK, values_BKK, torch.zeros_like(values_BKK)).sum((1, 2))
    return total_B if merge is Merge.sum else total_B / pair_BKK.sum((1, 2)).clamp(min=1)


def pairwise(z_BK: Tensor, bins_BK: Tensor, link: Link = negative_log_sigmoid, merge: Merge = Merge.mean) -> Tensor:
    """Links of z_i − z_j over all pairs with 0 ≤ bin_i < bin_j."""
    gap_BKK = differences(z_BK)
    if merge is Merge.merged:
        pair_BKK = better_pairs(bins_BK)
        gap_B = over_pairs(gap_BKK, bins_BK, Merge.sum)
        return torch.where(pair_BKK.any(2).any(1), link(gap_B), torch.zeros_like(gap_B))
    return over_pairs(link(gap_BKK), bins_BK, merge)


def soft_target(z_BK: Tensor, target_BK: Tensor, kept_BK: Tensor) -> Tensor:
    """Cross-entropy −Σ_i target_i · log softmax(z)_i over the kept responses (InfoNCA, MPO eq. 3)."""
    log_share_BK = z_BK - masked_logsumexp(z_BK, kept_BK)[:, None]
    return -torch.where(kept_BK, target_BK * log_share_BK, torch.zeros_like(z_BK)).sum(-1)


def pointwise(
    z_BK: Tensor, positive_BK: Tensor, negative_BK: Tensor, kept_BK: Tensor, link: Link = negative_log_sigmoid
) -> Tensor:
    """Mean over the kept responses of positive_i · link(z_i) + negative_i · link(−z_i)."""
    return set_mean(positive_BK * link(z_BK) + negative_BK * link(-z_BK), kept_BK)


def softmax_scores(scores_BK: Tensor, kept_BK: Tensor, tau: float) -> Tensor:
    """softmax(S/τ) over the kept responses, 0 elsewhere."""
    scaled_BK = scores_BK / tau
    share_BK = (scaled_BK - masked_logsumexp(scaled_BK, kept_BK)[:, None]).exp()
    return torch.where(kept_BK, share_BK, torch.zeros_like(share_BK))
