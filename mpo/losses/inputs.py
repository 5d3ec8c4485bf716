"""What a loss gets and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mpo.errors import DataError


@dataclass(frozen=True, eq=False)
class LossInputs:
    """A batch of B response sets with up to K responses each, padded to K.

    Padding may hold anything, also inf and nan: it is never read.

    Attributes:
        policy_logps_BK: log π_θ(y|x), summed over response tokens, float32 or float64; carries the gradient.
        lengths_BK: response tokens, the end-of-turn token included.
        scores_BK: scores, larger is better.
        bins_BK: bins, long: 0 best, larger is worse, all below K; -1 dropped or padding.
        mask_BK: True for real responses.
        reference_logps_BK: log π_ref(y|x), for losses with ``needs_reference``.
        mismatched_log_ratio: 0-dim, mean of log π_θ − log π_ref over mismatched prompt/response pairs of the global
            batch, in nats, not yet clamped at 0; for losses with ``needs_mismatched_kl``.
        policy_token_logps_BKT: log-probs of the response tokens, for losses with ``needs_token_logps``.
        reference_token_logps_BKT: the same of the reference.
        token_mask_BKT: True for real response tokens.
        win_rates_BK: mean of σ(S_i − S_j) over all sampled responses j of the set, i and dropped ones included; for
            losses with ``needs_win_rates``, which compute it from the responses in ``mask_BK`` where it is None.
        wpo_log_weights_BK: Σ_t [log π_θ(y_t|…) − log Σ_v π_θ(v|…)²] over response tokens, without gradient; for losses
            with ``needs_wpo_weights``.
    """

    policy_logps_BK: Tensor
    lengths_BK: Tensor
    scores_BK: Tensor
    bins_BK: Tensor
    mask_BK: Tensor
    reference_logps_BK: Tensor | None = None
    mismatched_log_ratio: Tensor | None = None
    policy_token_logps_BKT: Tensor | None = None
    reference_token_logps_BKT: Tensor | None = None
    token_mask_BKT: Tensor | None = None
    win_rates_BK: Tensor | None = None
    wpo_log_weights_BK: Tensor | None = None

    def only(self, active_BK: Tensor) -> LossInputs:
        """The same sets with every response outside ``active_BK`` dropped and its numbers made harmless.

        Logps and scores become 0, lengths 1, bins -1, so that neither forward nor backward meets inf or nan there.
        Scores and lengths take the dtype of
        the logps: a Python float times an integer tensor would be float32 even among float64.
        """

        def zeroed(values: Tensor | None, where: Tensor) -> Tensor | None:
            return None if values is None else torch.where(where, values, torch.zeros_like(values))

        tokens_BKT = None if self.token_mask_BKT is None else self.token_mask_BKT & active_BK.unsqueeze(-1)
        tokens_or_all_BKT = active_BK.unsqueeze(-1) if tokens_BKT is None else tokens_BKT
        policy_BK, scores_BK = self.policy_logps_BK, self.scores_BK
        win_rates_BK = zeroed(self.win_rates_BK, active_BK)
        return replace(
            self,
            policy_logps_BK=torch.where(active_BK, policy_BK, torch.zeros_like(policy_BK)),
            lengths_BK=torch.where(active_BK, self.lengths_BK, torch.ones_like(self.lengths_BK)).to(policy_BK.dtype),
            scores_BK=torch.where(active_BK, scores_BK, torch.zeros_like(scores_BK)).to(policy_BK.dtype),
            bins_BK=torch.where(active_BK, self.bins_BK, torch.full_like(self.bins_BK, -1)),
            mask_BK=self.mask_BK & active_BK,
            reference_logps_BK=zeroed(self.reference_logps_BK, active_BK),
            policy_token_logps_BKT=zeroed(self.policy_token_logps_BKT, tokens_or_all_BKT),
            reference_token_logps_BKT=zeroed(self.reference_token_logps_BKT, tokens_or_all_BKT),
            token_mask_BKT=tokens_BKT,
            win_rates_BK=None if win_rates_BK is None else win_rates_BK.to(policy_BK.dtype),
            wpo_log_weights_BK=zeroed(self.wpo_log_weights_BK, active_BK),
        )


@dataclass(frozen=True, eq=False)
class LossOutput:
    """Per-set results; the batch's loss is the mean of ``loss_B`` over the kept sets of the **global** batch.

    Attributes:
        loss_B: loss of each set, 0 and without gradient where the set is not kept.
        keep_B: bool, False where the set carries no signal; depends on data only.
        metrics: name to a detached [B] tensor, nan where a set has no such number (average with ``nanmean``).
    """

    loss_B: Tensor
    keep_B: Tensor
    metrics: dict[str, Tensor]


def require(values: Tensor | None, name: str) -> Tensor:
    """The optional input ``name`` of ``LossInputs``.

    Raises:
        ValueError: it is missing, although the loss declares that it needs it.
    """
    if values is None:
        raise ValueError(f"this loss needs LossInputs.{name}")
    return values


def win_rates(scores_BK: Tensor, over_BK: Tensor) -> Tensor:
    """P̂_i = mean_j σ(S_i − S_j) over the marked responses j of the set, i included (arXiv 2405.00675), ``[B,K]``."""
    wins_BKK = torch.sigmoid(scores_BK[:, :, None] - scores_BK[:, None, :])
    return set_mean(wins_BKK, over_BK[:, None, :].expand_as(wins_BKK))


def set_mean(values_BK: Tensor, where_BK: Tensor) -> Tensor:
    """Mean over the marked responses of each set, ``[B,K] -> [B]``; 0 where none is marked."""
    total_B = torch.where(where_BK, values_BK, torch.zeros_like(values_BK)).sum(-1)
    return total_B / where_BK.sum(-1).clamp(min=1)


def of_best(values_BK: Tensor, inputs: LossInputs) -> Tensor:
    """Of each set the value of w, the best response by score (of ties the first) of its best bin, ``[B]``."""
    kept_BK = inputs.bins_BK >= 0
    unused_bin = torch.full_like(inputs.bins_BK, inputs.bins_BK.shape[-1])
    best_bin_B1 = torch.where(kept_BK, inputs.bins_BK, unused_bin).amin(-1, keepdim=True)
    in_best_BK = inputs.bins_BK == best_bin_B1
    scores_BK = torch.where(in_best_BK, inputs.scores_BK, torch.full_like(inputs.scores_BK, -torch.inf))
    return values_BK.gather(-1, scores_BK.argmax(-1, keepdim=True)).squeeze(-1)


def score_shares(inputs: LossInputs, score_max: float) -> Tensor:
    """S_i / score_max, [B,K].

    Raises:
        DataError: a score outside 0..score_max, where it is no share. Of tensors on a card, which would have to be
            waited for, nothing is looked at: a run's scores were, when they were sorted into bins.
    """
    share_BK = inputs.scores_BK / score_max
    if share_BK.device.type == "cpu" and bool(((share_BK < 0) | (share_BK > 1)).any()):
        low, high = inputs.scores_BK.min().item(), inputs.scores_BK.max().item()
        what = f"scores reach from {low:g} to {high:g}, outside 0..{score_max:g}"
        raise DataError(what, "loss.score_max", "raise it, or scale the scores")
    return share_BK
