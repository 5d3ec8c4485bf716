"""Rows longer than a card: processes that forward one row together, each a share of its tokens (Ulysses).

Everything of a model but attention treats tokens one by one, so each process computes, and keeps for the backward pass,
what its share needs. For attention they exchange: from all heads of a share of the tokens to a share of the heads of
all tokens, and back (arXiv 2309.14509). Each process knows the whole batch, gets the log-probs of all its tokens and
computes the same loss, whose gradient goes on to the log-probs that it computed itself. Summed over processes, as
gradients are anyway, that is the gradient of a process alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch import distributed as dist

from mpo.layout.shape_buckets import stepped_row

RowAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention over a whole row: query ``[1,N,H,D]``, key and value ``[1,N,G,D]`` to ``[1,N,H,D]``."""


class Exchange(Protocol):
    """What :class:`deepspeed.sequence.layer.DistributedAttention` is called with."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, batch_dim: int, rotary: None, attend: RowAttention, /
    ) -> Tensor: ...


class SequenceShares:
    """A process's place among those that forward a row together; by default it is alone, and nothing is exchanged.

    Args:
        group: of the processes.
        exchange: gives :data:`RowAttention` all tokens of some heads, for some tokens of all heads.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, exchange: Exchange | None = None) -> None:
        self._group, self._exchange = group, exchange
        self.rank, self.size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))

    def padded(self, rows: int, like: Tensor) -> int:
        """``rows`` or a few more, which the processes can share; for the products of a share with ``like``."""
        return self.size * stepped_row(-(-rows // self.size), like)

    def share(self, values_N: Tensor) -> Tensor:
        """This process's rows of those that all have."""
        rows = len(values_N) // self.size
        return values_N[self.rank * rows : (self.rank + 1) * rows]

    def whole(self, share_N: Tensor) -> Tensor:
        """The rows of all processes, of which each goes on with other ones: their gradients are added up."""
        return share_N if self._group is None else _Gathered.apply(share_N, self, self.reduced)  # type: ignore[no-any-return,no-untyped-call]

    def same(self, share_N: Tensor) -> Tensor:
        """The rows of all processes, with which all do the same: each has the gradient of its own."""
        return share_N if self._group is None else _Gathered.apply(share_N, self, self.share)  # type: ignore[no-any-return,no-untyped-call]

    def heads(self, values_H: Tensor | None) -> Tensor | None:
        """Those of the heads that this process's attention is of."""
        return None if values_H is None else self.share(values_H)

    def attention(self, attend: RowAttention, query_1NHD: Tensor, key_1NGD: Tensor, value_1NGD: Tensor) -> Tensor:
        """``[1,N,H,D]`` of this process's tokens; ``attend`` gets all tokens, and as many heads as are its share.

        Where there are fewer key heads than processes, some have the same one.
        """
        if self._exchange is None:
            return attend(query_1NHD, key_1NGD, value_1NGD)
        times = key_heads(key_1NGD.shape[2], self.size) // key_1NGD.shape[2]
        if times > 1:
            key_1NGD, value_1NGD = (tensor.repeat_interleave(times, dim=2) for tensor in (key_1NGD, value_1NGD))
        return self._exchange(query_1NHD, key_1NGD, value_1NGD, 0, None, attend)

    def gathered(self, share_N: Tensor) -> Tensor:
        """The rows of all processes, without gradient."""
        assert self._group is not None
        whole_N = share_N.new_empty(self.size * len(share_N), *share_N.shape[1:])
        dist.all_gather_into_tensor(whole_N, share_N.contiguous(), group=self._group)
        return whole_N

    def reduced(self, values_N: Tensor) -> Tensor:
        """This process's rows of the sum over processes, without gradient."""
        share_N = values_N.new_empty(len(values_N) // self.size, *values_N.shape[1:])
        dist.reduce_scatter_tensor(share_N, values_N.contiguous(), group=self._group)
        return share_N


def key_heads(of_keys: int, processes: int) -> int:
    """What ``of_keys`` heads of keys are repeated to, so that the processes can share them; each then has the keys that
    go with its queries. Their number divides that of the query heads if ``of_keys`` and ``processes`` do."""
    return math.lcm(of_keys, processes)


class _Gathered(torch.autograd.Function):
    """The rows of all processes; ``share_of`` makes this process's gradient of that of all rows."""

    @staticmethod
    def forward(ctx: Any, share_N: Tensor, shares: SequenceShares, share_of: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.share_of = share_of
        return shares.gathered(share_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.share_of(grads[0]), None, None
