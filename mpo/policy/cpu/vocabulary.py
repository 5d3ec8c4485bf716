"""Gradients of the vocabulary's weights, added in place to the float32 sum that the optimizer reads.

Autograd makes a tensor of the whole vocabulary of every use, of the head and of the embedding, adds them up where the
two share their weights, and only then hands them on to be widened and added to the sum: four passes over the largest
weights of a small model, in memory that is fresh each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SumOf = Callable[[], Tensor]
"""The float32 tensor of a weight's shape to which its gradient is added; asked for anew in each backward pass."""


def sum_in_place(embedding: nn.Module, sum_of: SumOf | None) -> None:
    """Add the gradient of ``embedding`` to the sum; None: leave it to autograd again.

    That of another class, which may do more, stays autograd's.
    """
    forward = vars(embedding).get("forward")
    if isinstance(forward, partial) and forward.func is _embed:
        del embedding.forward
    if sum_of is None or type(embedding) is not nn.Embedding:
        return
    if embedding.max_norm is None and not embedding.scale_grad_by_freq:
        embedding.forward = partial(_embed, embedding, sum_of)  # type: ignore[method-assign]


def _embed(self: nn.Embedding, sum_of: SumOf, input: Tensor) -> Tensor:
    return _Embed.apply(input, self.weight, self.padding_idx, sum_of)  # type: ignore[no-any-return,no-untyped-call]


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight_VD: Tensor, padding: int | None, sum_of: SumOf) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.padding, ctx.sum_of = padding, sum_of
        return functional.embedding(ids, weight_VD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        (ids,) = ctx.saved_tensors
        sum_VD = ctx.sum_of()
        grad_ND = grads[0].flatten(0, -2).to(sum_VD.dtype)
        if ctx.padding is not None:  # which has no gradient
            grad_ND = grad_ND.where(ids.flatten()[:, None] != ctx.padding, 0.0)
        sum_VD.index_add_(0, ids.flatten(), grad_ND)
        return None, None, None, None
