"""The CPU back end: blocks of responses against their prompt and themselves, products by the library.

A response's keys are its prompt's and its own side by side, gathered for the block at work and never kept, so a softmax
is one call over all that a token sees. Short responses to a long prompt are taken several at a time, each still seeing
itself alone. Kept for the backward pass are queries, keys and values as the model made them, in its own precision;
scores are computed again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mpo.layout.batch import TokenBatch
from mpo.policy.cpu.blocks import Block, BlockPlan, Tile, widest
from mpo.policy.cpu.sequences import Scratch
from mpo.policy.products import products_of


class BlockAttend:
    """Attention in blocks, each with all its keys. Exact; deterministic."""

    def __init__(self, batch: TokenBatch) -> None:
        self.plan, self.scratch = BlockPlan(batch), Scratch()

    def __call__(
        self,
        query_NHD: Tensor,
        key_NGD: Tensor,
        value_NGD: Tensor,
        scale: float,
        window: int | None,
        known_NHD: Tensor | None = None,
    ) -> Tensor:
        """See :class:`mpo.policy.attention.backends.Attend`; scores are neither capped nor have sinks.

        Args:
            known_NHD: what an earlier call with the same values returned; only its gradient is wanted.
        """
        query, key, value = (tensor.transpose(0, 1) for tensor in (query_NHD, key_NGD, value_NGD))
        return _Attention.apply(query, key, value, known_NHD, self, scale, window)  # type: ignore[no-any-return,no-untyped-call]


class _Gathered:
    """What one pass over a block computes with: M sequences, H query heads, G key heads; b counts M·G, t H/G·T."""

    def __init__(self, scratch: Scratch, block: Block, query_HND: Tensor, key_GND: Tensor, value_GND: Tensor) -> None:
        self.block, self.scratch = block, scratch
        self.dtype, self.wide = query_HND.dtype, widest(query_HND.dtype)
        self.groups = len(key_GND)
        self.query_MHTD = self.of_queries("query", query_HND)
        self.key_bSD = self._of_keys("key", key_GND)
        self.value_bSD = self._of_keys("value", value_GND)
        self._wide_key_bSD = self.widened("wide key", self.key_bSD)

    def of_queries(self, name: str, row_HND: Tensor) -> Tensor:
        """The row's values at the queries, ``[M,H,T,D]``."""
        return self.block.queries.read(row_HND, self.like_queries(name, len(row_HND), row_HND.shape[-1]))

    def like_queries(self, name: str, heads: int, width: int) -> Tensor:
        """``[M,H,T,D]`` of any content."""
        queries = self.block.queries
        return self.scratch(name, self.dtype, queries.members, heads, queries.length, width)

    def _of_keys(self, name: str, row_GND: Tensor) -> Tensor:
        keys = self.block.keys
        memory = self.scratch(name, self.dtype, keys.members, self.groups, keys.length, row_GND.shape[-1])
        return keys.read(row_GND, memory).flatten(0, 1)

    def widened(self, name: str, values: Tensor) -> Tensor:
        """The same values, float32."""
        return values if self.dtype == self.wide else self.scratch(name, self.wide, *values.shape).copy_(values)

    def narrowed(self, values: Tensor) -> Tensor:
        """Float32 values in the model's precision, until the next call."""
        return values if self.dtype == self.wide else self.scratch("narrow", self.dtype, *values.shape).copy_(values)

    def folded(self, values_MHTD: Tensor, tile: Tile) -> Tensor:
        """The tile's, ``[b,t,D]``: query heads of one key head are more queries to it."""
        part_MHTD = values_MHTD[:, :, tile.queries]
        members, heads, queries, width = part_MHTD.shape
        return part_MHTD.reshape(members * self.groups, heads // self.groups * queries, width)

    def unfold(self, values_btD: Tensor, tile: Tile, into_MHTD: Tensor) -> None:
        """The inverse, into the tile's place."""
        place_MHTD = into_MHTD[:, :, tile.queries]
        place_MHTD.copy_(values_btD.view(place_MHTD.shape))

    def product(self, name: str, left_btD: Tensor, right_bSD: Tensor) -> Tensor:
        """``[b,t,S]``, float32: left · rightᵀ, of float32 tensors."""
        # A slice is made whole first: transposed as it is, the library would copy it far more slowly.
        memory = self.scratch(name, self.wide, *left_btD.shape[:2], right_bSD.shape[1])
        return torch.bmm(left_btD, right_bSD.contiguous().transpose(1, 2), out=memory)

    def softmax(self, tile: Tile, scale: float) -> Tensor:
        """``[b,t,S]``, float32, of the tile's queries over its keys."""
        query_btD = self.folded(self.query_MHTD, tile).to(self.wide) * scale
        scores_btS = self.product("scores", query_btD, self._wide_key_bSD[:, tile.keys])
        if tile.unseen is not None:
            queries = tile.queries.stop - tile.queries.start
            scores_MHTS = scores_btS.view(len(tile.unseen), -1, queries, scores_btS.shape[-1])
            scores_MHTS[..., -tile.unseen.shape[-1] :] += tile.unseen
        return torch.softmax(scores_btS, -1, out=self.scratch("weights", self.wide, *scores_btS.shape))


class _Attention(torch.autograd.Function):
    """``[N,H,D]`` from query ``[H,N,D]``, key and value ``[G,N,D]``, whose N counts skipped tokens as well.

    In bfloat16 scores, softmax and their gradients are float32; weights and scores' gradients are rounded for the
    products with values, keys and queries. Keys' and values' gradients are added up in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        known_NHD: Tensor | None,
        attend: BlockAttend,
        scale: float,
        window: int | None,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.attend, ctx.scale, ctx.window = attend, scale, window
        if known_NHD is not None:
            return known_NHD.view_as(known_NHD)
        out_NHD = query.new_empty(query.shape[1] + 1, len(query), value.shape[-1])
        with products_of(query.dtype):
            for block in attend.plan.blocks(query, key, window):
                for heads, groups in block.heads:
                    part = _Gathered(attend.scratch, block, query[heads], key[groups], value[groups])
                    out_MHTD = part.like_queries("out", heads.stop - heads.start, value.shape[-1])
                    for tile in block.tiles:
                        weights_btS = part.narrowed(part.softmax(tile, scale))
                        part.unfold(weights_btS @ part.value_bSD[:, tile.keys].contiguous(), tile, out_MHTD)
                    block.queries.write(out_MHTD, out_NHD[:, heads])
        return out_NHD[:-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        attend: BlockAttend = ctx.attend
        grad_out = grads[0].transpose(0, 1)
        wide = widest(query.dtype)
        grad_query = query.new_empty(query.shape[1] + 1, len(query), query.shape[-1])
        grad_key = key.new_zeros(key.shape[1] + 1, len(key), key.shape[-1], dtype=wide)
        grad_value = value.new_zeros(value.shape[1] + 1, len(value), value.shape[-1], dtype=wide)
        with products_of(query.dtype):
            for block in attend.plan.blocks(query, key, ctx.window):
                for heads, groups in block.heads:
                    part = _Gathered(attend.scratch, block, query[heads], key[groups], value[groups])
                    _backward(part, grad_out[heads], ctx.scale, grad_query[:, heads], grad_key[:, groups],
                              grad_value[:, groups])  # fmt: skip
        of_query, of_key, of_value = (
            grad[:-1].to(query.dtype).transpose(0, 1) for grad in (grad_query, grad_key, grad_value)
        )
        return of_query, of_key, of_value, None, None, None, None


def _backward(
    part: _Gathered,
    grad_out_HND: Tensor,
    scale: float,
    grad_query_NHD: Tensor,
    grad_key_NGD: Tensor,
    grad_value_NGD: Tensor,
) -> None:
    """Writes the gradient of a pass's queries, and adds those of its keys and values."""
    block, scratch, wide = part.block, part.scratch, part.wide
    grad_out_MHTD = part.of_queries("out", grad_out_HND)
    if block.queries.members > 1 and not block.queries.full:
        grad_out_MHTD *= block.queries.real_ML[:, None, :, None]  # padding contributes no gradient to keys and values
    wide_value_bSD = part.widened("wide value", part.value_bSD)
    of_query_MHTD = part.like_queries("query's", len(grad_out_HND), part.query_MHTD.shape[-1])
    of_key_bSD = scratch("key's", wide, *part.key_bSD.shape).zero_()
    of_value_bSD = scratch("value's", wide, *part.value_bSD.shape).zero_()
    for tile in block.tiles:
        query_btD, of_out_btD = part.folded(part.query_MHTD, tile), part.folded(grad_out_MHTD, tile)
        weights_btS = part.softmax(tile, scale)
        of_weights_btS = part.product("scores", of_out_btD.to(wide), wide_value_bSD[:, tile.keys])
        of_value_bSD[:, tile.keys] += part.narrowed(weights_btS).transpose(1, 2) @ of_out_btD
        of_scores_btS = torch.ops.aten._softmax_backward_data(
            of_weights_btS, weights_btS, -1, wide, grad_input=scratch("scores'", wide, *weights_btS.shape)
        )
        of_scores_btS = part.narrowed(of_scores_btS)
        part.unfold((of_scores_btS @ part.key_bSD[:, tile.keys].contiguous()).mul_(scale), tile, of_query_MHTD)
        of_key_bSD[:, tile.keys] += of_scores_btS.transpose(1, 2) @ query_btD
    block.queries.write(of_query_MHTD, grad_query_NHD)
    block.keys.add(of_key_bSD.mul_(scale).unflatten(0, (-1, part.groups)), grad_key_NGD)
    block.keys.add(of_value_bSD.unflatten(0, (-1, part.groups)), grad_value_NGD)
