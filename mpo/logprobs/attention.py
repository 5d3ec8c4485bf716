"""Attention over a packed row in which the responses of a set share their prompt.

Registered with transformers as ``mpo_shared_prefix``: everything of the model but this function treats the row's
tokens one by one, so nothing is computed twice and nothing is padding. Here prompts attend to themselves, and each
response to its prompt and itself, by scaled-dot-product attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mpo.logprobs.batch import TokenBatch

NAME = "mpo_shared_prefix"


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """What the attention of every layer needs to know of a batch, computed once for all of them.

    Attributes:
        mask_RTL: bool, what a response's token may attend to: L is the longest prompt plus the longest response.
        place_N: long, where the row's tokens stand among the padded prompts (S·P) followed by the responses (R·T).
    """

    batch: TokenBatch
    mask_RTL: Tensor
    place_N: Tensor

    @classmethod
    def of(cls, batch: TokenBatch) -> SharedPrefix:
        """The layout of ``batch``, on its device."""
        device = batch.input_ids_N.device
        prompt_P = torch.arange(batch.prompt_index_SP.shape[1], device=device)
        step_T = torch.arange(batch.response_index_RT.shape[1], device=device)
        of_prompt_RP = prompt_P < batch.prompt_lengths_S[batch.prompt_of_R][:, None]
        causal_TT = step_T[:, None] >= step_T
        responses, steps = len(batch.prompt_of_R), len(step_T)
        mask_RTL = torch.cat([of_prompt_RP[:, None].expand(-1, steps, -1), causal_TT.expand(responses, -1, -1)], dim=-1)
        place_N = torch.cat(
            [
                (prompt_P < batch.prompt_lengths_S[:, None]).flatten().nonzero().squeeze(-1),
                (step_T < batch.response_lengths_R[:, None]).flatten().nonzero().squeeze(-1)
                + batch.prompt_index_SP.numel(),
            ]
        )
        return cls(batch, mask_RTL, place_N)

    def windowed(self, window: int) -> tuple[Tensor, Tensor]:
        """Masks [P,P] of prompts and [R,T,L] of responses where a token sees ``window`` positions, its own included."""
        batch = self.batch
        prompt_P = torch.arange(batch.prompt_index_SP.shape[1], device=self.mask_RTL.device)
        behind_PP = prompt_P[:, None] - prompt_P
        own_RT = batch.prompt_lengths_S[batch.prompt_of_R][:, None] + torch.arange(
            batch.response_index_RT.shape[1], device=self.mask_RTL.device
        )
        seen_RL = torch.cat([prompt_P.expand(len(own_RT), -1), own_RT], dim=1)
        near_RTL = own_RT[:, :, None] - seen_RL[:, None] < window
        return (behind_PP >= 0) & (behind_PP < window), self.mask_RTL & near_RTL


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared_prefix: SharedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query ``[1,H,N,D]``, key and value ``[1,G,N,D]`` to ``[1,N,H,D]``.

    Without ``shared_prefix`` it is transformers' own scaled-dot-product attention.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    batch, window = shared_prefix.batch, kwargs.get("sliding_window")
    prompt_mask_PP, mask_RTL = None, shared_prefix.mask_RTL
    if window is not None and window < mask_RTL.shape[-1]:
        prompt_mask_PP, mask_RTL = shared_prefix.windowed(window)
    grouped = key.shape[1] != query.shape[1]
    query_NHD, key_NGD, value_NGD = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    keys_SPGD, values_SPGD = _pick(key_NGD, batch.prompt_index_SP), _pick(value_NGD, batch.prompt_index_SP)
    prompts_SHPD = F.scaled_dot_product_attention(
        _pick(query_NHD, batch.prompt_index_SP).transpose(1, 2),
        keys_SPGD.transpose(1, 2),
        values_SPGD.transpose(1, 2),
        attn_mask=prompt_mask_PP,
        is_causal=prompt_mask_PP is None,
        scale=scaling,
        enable_gqa=grouped,
    )
    keys_RLGD = torch.cat([keys_SPGD.index_select(0, batch.prompt_of_R), _pick(key_NGD, batch.response_index_RT)], 1)
    values_RLGD = torch.cat(
        [values_SPGD.index_select(0, batch.prompt_of_R), _pick(value_NGD, batch.response_index_RT)], 1
    )
    responses_RHTD = F.scaled_dot_product_attention(
        _pick(query_NHD, batch.response_index_RT).transpose(1, 2),
        keys_RLGD.transpose(1, 2),
        values_RLGD.transpose(1, 2),
        attn_mask=mask_RTL[:, None],
        scale=scaling,
        enable_gqa=grouped,
    )
    heads, width = query.shape[1], value.shape[-1]
    padded = [prompts_SHPD.transpose(1, 2), responses_RHTD.transpose(1, 2)]
    out_HD = torch.cat([tensor.reshape(-1, heads, width) for tensor in padded])
    return out_HD.index_select(0, shared_prefix.place_N).unsqueeze(0), None


def _pick(tokens_NHD: Tensor, index_RT: Tensor) -> Tensor:
    """``[N,H,D]`` at ``[R,T]`` to ``[R,T,H,D]``."""
    return tokens_NHD.index_select(0, index_RT.flatten()).unflatten(0, index_RT.shape)


AttentionInterface.register(NAME, shared_prefix_attention)
# The layout is known without a mask; transformers must not build a dense one over the row.
AttentionMaskInterface.register(NAME, lambda *arguments, **named: None)
