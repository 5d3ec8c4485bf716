"""The language-model head over response positions only, in chunks: full logits are never materialised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mpo.errors import ConfigError

LOGITS_AT_ONCE = 1 << 25
"""Largest number of logits (positions x vocabulary) that exist at a time: 128 MiB in float32."""


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

    def forward(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Log-prob of each target under the softmax of its position, float32."""
        size = max(1, LOGITS_AT_ONCE // self.weight.shape[0])
        chunks = zip(hidden_ND.split(size), targets_N.split(size), strict=True)
        if torch.is_grad_enabled():
            logps = [
                checkpoint(self._chunk, hidden, targets, use_reentrant=False, preserve_rng_state=False)
                for hidden, targets in chunks
            ]
        else:
            logps = [self._chunk(hidden, targets) for hidden, targets in chunks]
        return torch.cat(logps)

    def _chunk(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        logits_NV = F.linear(hidden_ND, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = torch.tanh(logits_NV / self.softcap) * self.softcap
        return logits_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1) - logits_NV.logsumexp(-1)


def logit_extras(config: Any) -> tuple[float, float | None]:
    """What a family does to its logits after the head: (factor, soft cap or None).

    ``logit_scale`` (cohere) multiplies, ``logits_scaling`` (granite) divides, ``final_logit_softcapping`` (gemma2 and
    later) caps by tanh. Families with other extras are found by comparing logits (:func:`mpo.logprobs.load`).
    """
    scale = getattr(config, "logit_scale", None)
    divisor = getattr(config, "logits_scaling", None)
    factor = (1.0 if scale is None else float(scale)) / (1.0 if divisor is None else float(divisor))
    return factor, getattr(config, "final_logit_softcapping", None)
