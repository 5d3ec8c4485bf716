"""The language-model head over response positions only, in chunks: full logits are never materialised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpo.errors import ConfigError
from mpo.logprobs.fused import HeadKernel, fused_head

LOGITS_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 27}
"""Largest number of logits (positions x vocabulary) that exist at a time, by type of device: what a CPU's cache holds
(32 MiB in float32); on CUDA (512 MiB) so many positions that adding a chunk's gradient of the weights to their sum
takes no longer than the product that it comes from."""


class ChunkedHead(nn.Module):
    """Hidden states and target ids to float32 log-probs, ``([N,D], [N]) -> [N]``.

    Shares the head's own parameters, so that ZeRO-3 gathers them once for this module's forward and once for its
    backward. Calling the model's head once a chunk would gather once a chunk, and processes with different numbers of
    chunks would wait for each other for ever.
    """

    def __init__(self, head: nn.Module, scale: float, softcap: float | None) -> None:
        super().__init__()
        if type(head) is not nn.Linear:
            raise ConfigError(
                f"the head is a {type(head).__name__}, not a linear layer", "model.path", "use another model family"
            )
        self.weight = head.weight
        self.bias = head.bias
        self.scale, self.softcap = scale, softcap

    def forward(self, hidden_ND: Tensor, targets_N: Tensor, known: bool = False) -> Tensor:
        """Log-prob of each target under the softmax of its position, float32.

        Args:
            known: the values are of no interest any more, only their gradient is; they may be 0.
        """
        kernel = self._kernel(hidden_ND.device)
        if kernel is target_logps:
            return target_logps(hidden_ND, self.weight, self.bias, targets_N, self.softcap, self.scale, known)
        return kernel(hidden_ND, self.weight, self.bias, targets_N, self.softcap)

    @property
    def fused(self) -> bool:
        """Whether a library's kernel computes it on the device where it is."""
        return self._kernel(self.weight.device) is not target_logps

    def _kernel(self, device: torch.device) -> HeadKernel:
        if self.scale != 1.0:  # no library's kernel knows of such a factor
            return target_logps
        return fused_head(target_logps, device.type, self.weight.dtype, self.softcap, self.bias is not None)


def target_logps(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    softcap: float | None,
    scale: float = 1.0,
    known: bool = False,
) -> Tensor:
    """Our own kernel: see :data:`mpo.logprobs.fused.HeadKernel`.

    Args:
        scale: multiplies the logits.
        known: see :meth:`ChunkedHead.forward`.
    """
    logps_N: Tensor = _TargetLogps.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, bias_V, targets_N, scale, softcap, known
    )
    return logps_N


class _TargetLogps(torch.autograd.Function):
    """Log-softmax at the targets, a chunk of positions at a time; backward computes each chunk's logits anew.

    With q = softmax − target's one-hot, row by row, and g the gradient of the log-probs, hidden states get −g·(qW) and
    the weights −qᵀ(g·hidden): the factor g never needs a pass over a row of the vocabulary.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        scale: float,
        softcap: float | None,
        known: bool,
    ) -> Tensor:
        ctx.scale, ctx.softcap = scale, softcap
        if known:
            ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, None)
            return torch.zeros(len(targets_N), dtype=torch.float32, device=hidden_ND.device)
        logps_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_ND.device)
        lse_N = torch.empty_like(logps_N)
        for rows in _chunks(hidden_ND, weight_VD):
            logits_nV = _logits(hidden_ND[rows], weight_VD, bias_V, scale, softcap)
            targets_n1 = targets_N[rows].unsqueeze(-1)
            logits_n = logits_nV.gather(-1, targets_n1).squeeze(-1)
            # In place, because memory is what this costs beside the product.
            top_n = logits_nV.amax(-1)
            rest_n = logits_nV.sub_(top_n.unsqueeze(-1)).exp_().sum(-1).log_()
            logps_N[rows] = (logits_n - top_n) - rest_n
            lse_N[rows] = top_n + rest_n
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, lse_N)
        return logps_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, targets_N, lse_N = ctx.saved_tensors
        scale, softcap = ctx.scale, ctx.softcap
        grad_N1 = grads[0].unsqueeze(-1) * -scale
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden_ND = torch.empty_like(hidden_ND) if wants_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias else None
        for rows in _chunks(hidden_ND, weight_VD):
            q_nV = _logits(hidden_ND[rows], weight_VD, bias_V, scale, softcap)
            slope_nV = None if softcap is None else 1.0 - (q_nV / softcap).square_()
            q_nV = q_nV.softmax(-1) if lse_N is None else q_nV.sub_(lse_N[rows].unsqueeze(-1)).exp_()
            q_nV[torch.arange(len(q_nV), device=q_nV.device), targets_N[rows]] -= 1.0
            q_nV = (q_nV if slope_nV is None else q_nV.mul_(slope_nV)).to(weight_VD.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND[rows] = ((q_nV @ weight_VD).float() * grad_N1[rows]).to(hidden_ND.dtype)
            if grad_weight_VD is not None:
                scaled_nD = (hidden_ND[rows].float() * grad_N1[rows]).to(weight_VD.dtype)
                if grad_weight_VD.dtype == weight_VD.dtype:
                    grad_weight_VD.addmm_(q_nV.t(), scaled_nD)
                else:
                    grad_weight_VD += q_nV.t() @ scaled_nD
            if grad_bias_V is not None:
                grad_bias_V += grad_N1[rows].squeeze(-1) @ q_nV.float()
        return (
            grad_hidden_ND,
            None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype),
            None if grad_bias_V is None else grad_bias_V.to(bias_V.dtype),
            None,
            None,
            None,
            None,
        )


def _chunks(hidden_ND: Tensor, weight_VD: Tensor) -> list[slice]:
    size = max(1, LOGITS_AT_ONCE[hidden_ND.device.type] // weight_VD.shape[0])
    return [slice(start, start + size) for start in range(0, len(hidden_ND), size)]


def _logits(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    logits_NV = F.linear(hidden_ND, weight_VD, bias_V).float()
    if scale != 1.0:
        logits_NV = logits_NV * scale
    return logits_NV if softcap is None else torch.tanh(logits_NV / softcap) * softcap


def logit_extras(config: Any) -> tuple[float, float | None]:
    """What a family does to its logits after the head: (factor, soft cap or None).

    ``logit_scale`` (cohere) multiplies, ``logits_scaling`` (granite) divides, ``final_logit_softcapping`` (gemma2 and
    later) caps by tanh. Families with other extras are found by comparing logits (:func:`mpo.logprobs.load`).
    """
    scale = getattr(config, "logit_scale", None)
    divisor = getattr(config, "logits_scaling", None)
    factor = (1.0 if scale is None else float(scale)) / (1.0 if divisor is None else float(divisor))
    return factor, getattr(config, "final_logit_softcapping", None)
