"""A prompt apart from its responses: a set in pieces computes it with its first piece, and the others read it there.

All that a response takes from its prompt are the keys and values of every layer, and the hidden state that its first
token is predicted from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mpo.logprobs.batch import TokenBatch

Whole = Callable[[str, Tensor], Tensor]
"""From the forwarded tokens' values of that name, [N,...], to the whole row's."""


class KeptPrompt:
    """What the pieces of one set share. Its gradient goes to the first piece, which is the last to run backwards.

    The first piece's first forward pass keeps the values; backward of the other pieces adds up their gradient, in
    float32; the first piece's second forward pass takes it up, for its backward to carry it through the prompt.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def part(self, batch: TokenBatch) -> Whole:
        """What the forward pass of ``batch``, one of the pieces, has to pass its values through."""
        return self._read if batch.known else partial(self._shared, int(batch.prompt_lengths_S[0]))

    def _shared(self, tokens: int, name: str, row_N: Tensor) -> Tensor:
        kept = self._kept.get(name)
        if kept is None:
            wide = torch.promote_types(row_N.dtype, torch.float32)
            self._kept[name] = row_N[:tokens].detach().to(wide, copy=True).requires_grad_()
            return row_N
        return row_N if kept.grad is None else _Joined.apply(row_N, kept.grad)  # type: ignore[no-any-return,no-untyped-call]

    def _read(self, name: str, row_N: Tensor) -> Tensor:
        return torch.cat([self._kept[name].to(row_N.dtype), row_N])


class _Joined(torch.autograd.Function):
    """The row as it is; its first rows get ``more`` gradient."""

    @staticmethod
    def forward(ctx: Any, row_N: Tensor, more: Tensor) -> Tensor:
        ctx.more = more
        return row_N.view_as(row_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        whole = grads[0].clone(memory_format=torch.contiguous_format)
        whole[: len(ctx.more)] += ctx.more
        return whole, None
