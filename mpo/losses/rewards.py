"""Implicit rewards, each ``LossInputs -> [B,K]``, without β."""

from __future__ import annotations

import torch
from torch import Tensor

from mpo.losses.inputs import LossInputs, require


def log_ratio(inputs: LossInputs) -> Tensor:
    """r_i = log π_θ(y_i|x) − log π_ref(y_i|x), in nats (DPO, arXiv 2305.18290)."""
    return inputs.policy_logps_BK - require(inputs.reference_logps_BK, "reference_logps_BK")


def summed_logp(inputs: LossInputs) -> Tensor:
    """l_i = log π_θ(y_i|x), in nats (CPO, arXiv 2401.08417)."""
    return inputs.policy_logps_BK


def mean_logp(inputs: LossInputs) -> Tensor:
    """l_i / n_i, in nats per token (SimPO, arXiv 2405.14734)."""
    return inputs.policy_logps_BK / inputs.lengths_BK.to(inputs.policy_logps_BK.dtype)


def likelihood(inputs: LossInputs) -> Tensor:
    """p_i = exp(l_i / n_i), the geometric mean of the token probabilities (MPPO eq. 4-5)."""
    return mean_logp(inputs).exp()


def log_odds(inputs: LossInputs) -> Tensor:
    """logit p_i = log p_i − log(1 − p_i) (ORPO, arXiv 2403.07691).

    p = 1, where it is infinite, is held at one machine epsilon below, without gradient.
    """
    logp_BK = mean_logp(inputs)
    logp_BK = logp_BK.clamp(max=-torch.finfo(logp_BK.dtype).eps)
    return logp_BK - _log1mexp(logp_BK)


def _log1mexp(logp_BK: Tensor) -> Tensor:
    """log(1 − e^x) for x < 0 without cancellation, at either end."""
    near_one = logp_BK > -0.6931471805599453
    # Each branch sees only arguments that suit it: where() alone would let the other's inf into the gradient.
    close = torch.where(near_one, logp_BK, torch.full_like(logp_BK, -0.5))
    remote = torch.where(near_one, torch.full_like(logp_BK, -1.0), logp_BK)
    return torch.where(near_one, (-torch.expm1(close)).log(), torch.log1p(-remote.exp()))
