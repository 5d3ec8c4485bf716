"""Offline group-relative policy optimisation (MPO appendix I)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mpo.errors import ConfigError
from mpo.losses.base import ANY_BINS, Loss, check_not_negative
from mpo.losses.inputs import LossInputs, require, set_mean
from mpo.partition import Shape

_MAX_EXPONENT = 40.0
"""e^40 is far past any ratio that clipping keeps; beyond it the exponent is held, without gradient, lest float32
overflow."""


@dataclass(frozen=True)
class GRPO(Loss):
    """−mean_i (1/n_i) Σ_t [ min(ρ_t A_i, clip(ρ_t, 1±ε) A_i) − β_kl·k3_t ] (MPO appendix I).

    A_i = (S_i − mean)/std over the kept responses, std with divisor K − 1; ρ_t = π_θ/π_ref of token t;
    k3 = e^δ − δ − 1 with δ = log π_ref − log π_θ. ``epsilon`` is ε, ``kl_beta`` β_kl. Exponents are held at 40.
    """

    epsilon: float = 0.2
    kl_beta: float = 0.04
    needs_reference: ClassVar[bool] = True
    needs_token_logps: ClassVar[bool] = True
    needs_sides: ClassVar[bool] = False
    default_partition: ClassVar[str] = "everything"
    fits: ClassVar[frozenset[Shape]] = ANY_BINS

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1:
            raise ConfigError(f"epsilon is {self.epsilon}", "loss.epsilon", "give a number between 0 and 1")
        check_not_negative("kl_beta", self.kl_beta)

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        """Log-ratio summed over tokens, in nats."""
        return self._token_log_ratio(inputs).sum(-1)

    def per_set(self, inputs: LossInputs) -> Tensor:
        kept_BK = inputs.bins_BK >= 0
        advantage_BK1 = _advantage(inputs.scores_BK, kept_BK).unsqueeze(-1)
        log_ratio_BKT = self._token_log_ratio(inputs)
        ratio_BKT = log_ratio_BKT.clamp(max=_MAX_EXPONENT).exp()
        clipped_BKT = ratio_BKT.clamp(1 - self.epsilon, 1 + self.epsilon)
        gain_BKT = torch.minimum(ratio_BKT * advantage_BK1, clipped_BKT * advantage_BK1)
        k3_BKT = torch.expm1((-log_ratio_BKT).clamp(max=_MAX_EXPONENT)) + log_ratio_BKT
        tokens_BKT = require(inputs.token_mask_BKT, "token_mask_BKT")
        return -set_mean(set_mean(gain_BKT - self.kl_beta * k3_BKT, tokens_BKT), kept_BK)

    def _token_log_ratio(self, inputs: LossInputs) -> Tensor:
        policy_BKT = require(inputs.policy_token_logps_BKT, "policy_token_logps_BKT")
        reference_BKT = require(inputs.reference_token_logps_BKT, "reference_token_logps_BKT")
        return policy_BKT - reference_BKT


def _advantage(scores_BK: Tensor, kept_BK: Tensor) -> Tensor:
    deviation_BK = torch.where(kept_BK, scores_BK - set_mean(scores_BK, kept_BK)[:, None], torch.zeros_like(scores_BK))
    variance_B1 = (deviation_BK**2).sum(-1, keepdim=True) / (kept_BK.sum(-1, keepdim=True) - 1).clamp(min=1)
    # Without spread the set is not kept; any finite number will do.
    return deviation_BK / torch.where(variance_B1 > 0, variance_B1, torch.ones_like(variance_B1)).sqrt()
