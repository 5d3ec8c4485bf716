"""Per-set numbers that every loss reports; a number that a set does not have is nan."""

from __future__ import annotations

import torch
from torch import Tensor

from mpo.losses.inputs import LossInputs, set_mean
from mpo.losses.rewards import likelihood


def k3(delta: Tensor) -> Tensor:
    """Estimate of KL(reference || policy) at tokens drawn from the reference: e^-d - 1 + d, never negative.

    Responses of a set were drawn before training, so the expectation is the reference's, not the policy's; for data of
    other models the number only says how far the policy's log-probs have moved (Schulman, "Approximating KL
    divergence", 2020).

    Args:
        delta: log π_ref − log π_θ of each token, in nats, any shape.
    """
    return torch.expm1(-delta) + delta


def _mean_or_nan(values_BK: Tensor, where_BK: Tensor) -> Tensor:
    mean_B = set_mean(values_BK, where_BK)
    return torch.where(where_BK.any(-1), mean_B, torch.full_like(mean_B, torch.nan))


def set_metrics(reward_BK: Tensor, inputs: LossInputs) -> dict[str, Tensor]:
    """Metrics of each set, all [B].

    Args:
        reward_BK: implicit reward, detached.
        inputs: already restricted to real responses (``LossInputs.only``).

    Returns:
        ``reward_accepted`` (mean over bin 0), ``reward_rejected`` (mean over the other bins), ``margin`` (their
        difference), ``accuracy`` (share of the pairs S_i > S_j, dropped responses included, that the reward orders
        the same way; a tie in the reward counts half).
    """
    accepted_B = _mean_or_nan(reward_BK, inputs.bins_BK == 0)
    rejected_B = _mean_or_nan(reward_BK, inputs.bins_BK > 0)
    real_BKK = inputs.mask_BK[:, :, None] & inputs.mask_BK[:, None, :]
    pair_BKK = real_BKK & (inputs.scores_BK[:, :, None] > inputs.scores_BK[:, None, :])
    order_BKK = torch.sign(reward_BK[:, :, None] - reward_BK[:, None, :])
    right_B = torch.where(pair_BKK, 0.5 + 0.5 * order_BKK, torch.zeros_like(order_BKK)).sum((1, 2))
    return {
        "margin": accepted_B - rejected_B,
        "accuracy": right_B / pair_BKK.sum((1, 2)),  # 0/0, no pair at all, is nan as promised
        "reward_accepted": accepted_B,
        "reward_rejected": rejected_B,
    }


def rank_metrics(reward_BK: Tensor, inputs: LossInputs) -> dict[str, Tensor]:
    """Implicit reward and likelihood by score rank (MPO and MPPO figures of reward and likelihood over training).

    Args:
        reward_BK: implicit reward, detached.
        inputs: already restricted to real responses (``LossInputs.only``).

    Returns:
        ``reward_rank_BK`` and ``likelihood_rank_BK``: column 0 is the best response by score (of ties the first),
        nan past a set's last response.
    """
    scores_BK = torch.where(inputs.mask_BK, inputs.scores_BK, torch.full_like(inputs.scores_BK, -torch.inf))
    order_BK = torch.sort(scores_BK, dim=-1, descending=True, stable=True).indices
    real_BK = inputs.mask_BK.gather(-1, order_BK)

    def ranked(values_BK: Tensor) -> Tensor:
        return torch.where(real_BK, values_BK.gather(-1, order_BK), torch.full_like(values_BK, torch.nan))

    return {"reward_rank_BK": ranked(reward_BK), "likelihood_rank_BK": ranked(likelihood(inputs))}
