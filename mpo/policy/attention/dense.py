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
        self,
        query_NHD: Tensor,
        key_NGD: Tensor,
        value_NGD: Tensor,
        scale: float,
        window: int | None,
        softcap: float | None = None,
        sinks_H: Tensor | None = None,
    ) -> Tensor:
        """See :class:`mpo.policy.attention.backends.Attend`."""
        at_N = torch.arange(len(key_NGD), device=query_NHD.device)
        queries_N = at_N[len(key_NGD) - len(query_NHD) :]
        query, key, value = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (query_NHD, key_NGD, value_NGD))
        seen_NN = self._visibility.sees(queries_N[:, None], at_N, window)
        if softcap is None and sinks_H is None:
            enable_gqa = query.shape[1] != key.shape[1]
            out = F.scaled_dot_product_attention(
                query, key, value, attn_mask=seen_NN, scale=scale, enable_gqa=enable_gqa
            )
        else:
            out = _changed_scores(query, key, value, seen_NN, scale, softcap, sinks_H)
        return out[0].transpose(0, 1)


def _changed_scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen_NN: Tensor,
    scale: float,
    softcap: float | None,
    sinks_H: Tensor | None,
) -> Tensor:
    """``[1,H,N,D]`` of query ``[1,H,N,D]``, key and value ``[1,G,M,D]``, with scores that no library's kernel has."""
    key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (key, value))
    scores_1HNM = query @ key.transpose(2, 3) * scale
    if softcap is not None:
        scores_1HNM = softcap * torch.tanh(scores_1HNM / softcap)
    scores_1HNM = scores_1HNM.to(torch.promote_types(query.dtype, torch.float32)).masked_fill(~seen_NN, -torch.inf)
    if sinks_H is not None:
        sinks = sinks_H.to(scores_1HNM.dtype)[None, :, None, None].expand(*scores_1HNM.shape[:3], 1)
        scores_1HNM = torch.cat([scores_1HNM, sinks], dim=-1)
    weights_1HNM = scores_1HNM.softmax(-1)[..., : key.shape[2]]
    return weights_1HNM.to(value.dtype) @ value
