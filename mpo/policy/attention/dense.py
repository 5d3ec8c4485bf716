"""The reference back end: one dense mask over the row. Quadratic in its length; for comparisons."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mpo.layout.batch import TokenBatch
from mpo.policy.visibility import Visibility


class DenseAttend:
    """Scaled-dot-product attention under the mask [N,N] that the rule gives."""

    def __init__(self, batch: TokenBatch) -> None:
        self._visibility = Visibility.of(batch)

    def __call__(
        self, query_NHD: Tensor, key_NGD: Tensor, value_NGD: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """See :class:`mpo.policy.attention.backends.Attend`."""
        at_N = torch.arange(len(key_NGD), device=query_NHD.device)
        queries_N = at_N[len(key_NGD) - len(query_NHD) :]
        query, key, value = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (query_NHD, key_NGD, value_NGD))
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self._visibility.sees(queries_N[:, None], at_N, window),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return out[0].transpose(0, 1)
