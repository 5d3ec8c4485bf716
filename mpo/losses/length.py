"""Length-desensitised DPO: tokens beyond the other response's length count less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpo.errors import ConfigError
from mpo.losses.contrasts import negative_log_sigmoid, over_pairs
from mpo.losses.inputs import LossInputs, require
from mpo.losses.pairwise import LogRatioLoss


@dataclass(frozen=True)
class LDDPO(LogRatioLoss):
    """DPO on r̂_i = Σ_{t ≤ n} r_it + α·Σ_{t > n} r_it, n = min(n_w, n_b) (LD-DPO, arXiv 2409.06411).

    r_it is the log-ratio of token t. At ``alpha`` (α) 1 it is DPO, at 0 both responses count up to the shorter one's
    length. The implicit reward that metrics show is DPO's.
    """

    alpha: float = 0.5
    needs_token_logps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha}", "loss.alpha", "give a share in [0, 1]")

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return self.beta * self._token_log_ratio(inputs).sum(-1)

    def per_set(self, inputs: LossInputs) -> Tensor:
        ratio_BKT = self._token_log_ratio(inputs)
        tokens_BKT = require(inputs.token_mask_BKT, "token_mask_BKT")
        lengths_BK = tokens_BKT.sum(-1)
        # Log-ratio of response i's first min(n_i, n_j) tokens, [B,K,K]; before its first token there is nothing.
        shared_BKK = torch.minimum(lengths_BK[:, :, None], lengths_BK[:, None, :])
        last_BKK = tokens_BKT.int().argmax(-1)[:, :, None] + shared_BKK
        sums_BKT = torch.nn.functional.pad(ratio_BKT.cumsum(-1), (1, 0))
        within_BKK = sums_BKT.gather(-1, last_BKK)
        counted_BKK = within_BKK + self.alpha * (ratio_BKT.sum(-1)[:, :, None] - within_BKK)
        gap_BKK = self.beta * (counted_BKK - counted_BKK.transpose(1, 2))
        return over_pairs(negative_log_sigmoid(gap_BKK), inputs.bins_BK)

    def _token_log_ratio(self, inputs: LossInputs) -> Tensor:
        policy_BKT = require(inputs.policy_token_logps_BKT, "policy_token_logps_BKT")
        return policy_BKT - require(inputs.reference_token_logps_BKT, "reference_token_logps_BKT")
