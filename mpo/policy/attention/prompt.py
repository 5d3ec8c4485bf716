"""A prompt apart from its responses: a set in pieces computes it with its first piece, and the others read it there.

All that a response takes from its prompt are the keys and values of every layer, and hidden states, the last of which
predicts its first token.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mpo.layout.batch import TokenBatch

Across = Callable[[Hashable, Tensor], Tensor]
"""What one piece passes its tokens' values [N,...] of that name through: it returns those of the whole row."""


class KeptPrompt:
    """What the pieces of one set share. Its gradient goes to the first piece, which is the last to run backwards.

    The first piece's first forward pass keeps the values; backward of the other pieces adds up their gradient, in
    float32; the first piece's second forward pass takes it up, for its backward to carry it through the prompt.

    Args:
        tokens: of the prompt.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self._values: dict[Hashable, Tensor] = {}
        self._gradients: dict[Hashable, Tensor] = {}

    def across(self, batch: TokenBatch) -> Across:
        """For the forward pass of ``batch``, one of the pieces.

        Raises:
            ValueError: the batch goes on after another prompt.
        """
        if batch.skipped not in (0, self.tokens):
            raise ValueError(f"a prompt of {self.tokens} tokens is kept, the batch goes on after {batch.skipped}")
        return partial(_Read.apply, self) if batch.skipped else self._first  # type: ignore[no-untyped-call]

    def _first(self, name: Hashable, row_N: Tensor) -> Tensor:
        if name in self._gradients:
            return _Joined.apply(row_N, self._gradients[name])  # type: ignore[no-any-return,no-untyped-call]
        if name not in self._values:
            self._values[name] = row_N[: self.tokens].detach().clone()
        return row_N

    def read(self, name: Hashable) -> Tensor:
        """The prompt's values, ``[P,...]``, in the model's precision."""
        return self._values[name]

    def add(self, name: Hashable, gradient_P: Tensor) -> None:
        """Add one piece's gradient of them, ``[P,...]``."""
        if name not in self._gradients:
            wide = torch.promote_types(gradient_P.dtype, torch.float32)
            self._gradients[name] = torch.zeros_like(gradient_P, dtype=wide)
        self._gradients[name] += gradient_P


class _Read(torch.autograd.Function):
    """The prompt's values and the row's; the prompt gets its share of the gradient."""

    @staticmethod
    def forward(ctx: Any, prompt: KeptPrompt, name: Hashable, row_N: Tensor) -> Tensor:
        ctx.prompt, ctx.name = prompt, name
        return torch.cat([prompt.read(name), row_N])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        tokens = ctx.prompt.tokens
        ctx.prompt.add(ctx.name, grads[0][:tokens])
        return None, None, grads[0][tokens:]


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
