"""The CUDA back end: FlexAttention with a block mask, so that blocks which nobody sees are never computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import (
    AuxRequest,
    BlockMask,
    FlexKernelOptions,
    create_block_mask,
    flex_attention,
)

from mpo.layout.batch import TokenBatch
from mpo.policy.compiled import compiled
from mpo.policy.visibility import Visibility

NO_WINDOW = 1 << 30
"""In place of None, which would be compiled for itself."""

NARROWEST = 16
"""Numbers of a head that the kernels' products take at least; narrower ones are filled with zeros."""
KERNEL: dict[str, Any] = {"BACKEND": "TRITON"}
"""Never the kernel for decoding, which AUTO takes for rows below 128 tokens: torch 2.13 finds no block size for it that
divides the mask's where several query heads share a key's, and gives up."""
WIDE_BACKWARDS = {"bwd_BLOCK_M1": 32, "bwd_BLOCK_N1": 32, "bwd_BLOCK_M2": 32, "bwd_BLOCK_N2": 32, "bwd_num_stages": 2,
                  "bwd_num_warps": 8}  # fmt: skip
WIDEST_FORWARDS = {"fwd_BLOCK_M": 32}
"""For heads of more than 128 and of more than 256 numbers in 16 bits, on cards below :data:`AMPLE`. With the blocks
that torch 2.13 takes an A10 or L40S lacks shared memory, and an A100 spills 11 KiB of a thread's registers."""
AMPLE = 200 << 10
"""Bytes of shared memory for a block of threads: an H100 has more, an A100 fewer, others half as many."""


class FlexAttend:
    """FlexAttention over the packed row; compiled on CUDA, eager elsewhere (for tests)."""

    def __init__(self, batch: TokenBatch) -> None:
        self._visibility = Visibility.of(batch)
        self._queries_N = torch.arange(batch.skipped, batch.tokens, device=batch.input_ids_N.device)
        self._masks: dict[int | None, BlockMask] = {}

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
        on_cuda = query_NHD.is_cuda
        query, key, value = (_wide(tensor.transpose(0, 1).unsqueeze(0)) for tensor in (query_NHD, key_NGD, value_NGD))
        attend = compiled(flex_attention) if on_cuda else flex_attention
        out, aux = attend(
            query,
            key,
            value,
            score_mod=None if softcap is None else _capped(softcap, query.device),
            block_mask=self._mask(window, on_cuda),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
            kernel_options=_kernel(query) if on_cuda else None,
            return_aux=AuxRequest(lse=sinks_H is not None),
        )
        if sinks_H is not None:  # as one more key would: the others keep this share of the probability
            out = out * torch.sigmoid(aux.lse - sinks_H.float()[:, None])[..., None].to(out.dtype)
        return out[0, ..., : value_NGD.shape[-1]].transpose(0, 1)  # type: ignore[no-any-return]

    def _mask(self, window: int | None, on_cuda: bool) -> BlockMask:
        if window not in self._masks:
            visibility, queries_N = self._visibility, self._queries_N
            tokens = len(visibility.position_N)
            reach = NO_WINDOW if window is None else window

            def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return visibility.sees(queries_N[query], key, reach)

            create = compiled(create_block_mask) if on_cuda else create_block_mask
            self._masks[window] = create(rule, None, None, len(queries_N), tokens, device=queries_N.device)
        return self._masks[window]


def _capped(softcap: float, device: torch.device) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The cap is a tensor: as a number it would be one that torch.compile takes to change, inside of which it fails."""
    cap = torch.full((), softcap, device=device)

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


def _kernel(query: Tensor) -> FlexKernelOptions:
    """The kernels' options for heads of this width, on this card."""
    options, width = KERNEL, query.shape[-1]
    if query.itemsize == 2 and width > 128:
        card = torch.cuda.get_device_properties(query.device)
        if getattr(card, "shared_memory_per_block_optin", AMPLE) < AMPLE:  # AMD's have no such number
            options = KERNEL | (WIDE_BACKWARDS if width <= 256 else WIDEST_FORWARDS)
    return cast(FlexKernelOptions, options)


def _wide(heads: Tensor) -> Tensor:
    missing = NARROWEST - heads.shape[-1]
    return functional.pad(heads, (0, missing)) if missing > 0 else heads
