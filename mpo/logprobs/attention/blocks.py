"""The CPU back end: blocks of responses against their prompt and themselves, products by the library.

A response's keys are its prompt's and its own side by side, gathered for the block at work and never kept, so a softmax
is one call over all that a token sees. Short responses to a long prompt are taken several at a time, each still seeing
itself alone. Kept for the backward pass are queries, keys and values as the model made them, in its own precision;
scores are computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpo.logprobs.attention.groups import group
from mpo.logprobs.attention.sequences import Scratch, Sequences
from mpo.logprobs.attention.visibility import Visibility
from mpo.logprobs.batch import TokenBatch
from mpo.logprobs.sizes import KEYS, QUERIES, few_sizes, power_of_two, stepped

SCORES_AT_ONCE = 3 << 19
"""Scores (heads x queries x keys) that exist at a time: what a CPU's cache holds."""
QUERIES_AT_ONCE = 256
"""Queries of a sequence that are scored at a time: fewer see fewer keys in vain, more make faster products."""
RUN = 4
"""Responses are taken together up to their prompt's length over this: what they see of each other is masked."""
MASKED = -1e30
"""In place of -inf, which would make a row without any key nan."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Some queries of a block and the keys between which all that they see lies.

    ``unseen``: [M,1,T,S], what is added to the scores of the last S of these keys; None: all are seen.
    """

    queries: slice
    keys: slice
    unseen: Tensor | None


@dataclass(frozen=True, eq=False)
class Block:
    """M sequences of queries, each with its sequence of keys.

    Attributes:
        heads: (query heads, key heads) of a pass; several share a key's head.
        tiles: of the queries.
    """

    queries: Sequences
    keys: Sequences
    heads: Sequence[tuple[slice, slice]]
    tiles: Sequence[Tile]


class BlockAttend:
    """Attention in blocks, each with all its keys. Exact; deterministic."""

    def __init__(self, batch: TokenBatch) -> None:
        self._visibility = Visibility.of(batch)
        self._queries, self._keys = _members(batch)
        self._row, self._skipped = batch.tokens, batch.skipped
        self._blocks: dict[tuple[int, int, int | None], list[Block]] = {}
        self.scratch = Scratch()

    def __call__(
        self,
        query_NHD: Tensor,
        key_NGD: Tensor,
        value_NGD: Tensor,
        scale: float,
        window: int | None,
        known_NHD: Tensor | None = None,
    ) -> Tensor:
        """See :class:`mpo.logprobs.attention.backends.Attend`.

        Args:
            known_NHD: what an earlier call with the same values returned; only its gradient is wanted.
        """
        query, key, value = (tensor.transpose(0, 1) for tensor in (query_NHD, key_NGD, value_NGD))
        return _Attention.apply(query, key, value, known_NHD, self, scale, window)  # type: ignore[no-any-return,no-untyped-call]

    def blocks(self, query_HND: Tensor, key_GND: Tensor, window: int | None) -> list[Block]:
        """All of the row, each token's query in one block."""
        heads, groups = len(query_HND), len(key_GND)
        kind = (heads, groups, window)
        if kind not in self._blocks:
            queries_M, keys_M = self._queries[..., 1].sum(1), self._keys[..., 1].sum(1)
            self._blocks[kind] = [
                self._block(members, heads // groups, groups, window, query_HND)
                for alike in group(queries_M, keys_M)
                for members in _split(
                    alike,
                    heads
                    * stepped(int(queries_M[alike].max()), query_HND, QUERIES)
                    * stepped(int(keys_M[alike].max()), query_HND, KEYS),
                    few_sizes(query_HND),
                )
            ]
        return self._blocks[kind]

    def _block(self, members: np.ndarray, times: int, groups: int, window: int | None, like: Tensor) -> Block:
        def sequences(spans_M22: np.ndarray, row: int, step: int) -> Sequences:
            longest = int(spans_M22[..., 1].sum(1).max())
            return Sequences(spans_M22, row, stepped(longest, like, step))

        forwarded = self._queries[members] - [self._skipped, 0]
        queries = sequences(forwarded, self._row - self._skipped, QUERIES)
        keys = sequences(self._keys[members], self._row, KEYS)
        rows, at_once = queries.length, groups
        if len(members) == 1:
            tiles = max(1, round(rows / QUERIES_AT_ONCE), -(-rows * keys.length * times // SCORES_AT_ONCE))
            rows = stepped(-(-rows // tiles), like, QUERIES)
            at_once = min(groups, max(1, SCORES_AT_ONCE // (rows * keys.length * times)))
            threads = torch.get_num_threads()
            if at_once > threads:  # as many for each
                at_once -= at_once % threads
        passes = [slice(start, min(start + at_once, groups)) for start in range(0, groups, at_once)]
        tiles_of = [slice(start, min(start + rows, queries.length)) for start in range(0, queries.length, rows)]
        return Block(
            queries,
            keys,
            [(slice(of_keys.start * times, of_keys.stop * times), of_keys) for of_keys in passes],
            [self._tile(queries, keys, of_queries, window, _wide(like.dtype)) for of_queries in tiles_of],
        )

    def _tile(self, queries: Sequences, keys: Sequences, rows: slice, window: int | None, wide: torch.dtype) -> Tile:
        before_M = keys.lengths_M - queries.lengths_M  # of a response its prompt, of a prompt nothing
        alone = not before_M.any()
        last = rows.stop if alone else keys.length
        first, sure = 0, int(np.where(before_M > 0, before_M, rows.start + 1).min())  # keys before `sure` all see
        if window is not None:
            first = max(0, int(before_M.min()) + (rows.start if alone else 0) - window + 1)
            sure = first
        seen_MTS = (
            self._visibility.sees(
                self._skipped + queries.index_ML[:, rows, None], keys.index_ML[:, None, sure:last], window
            )
            & keys.real_ML[:, None, sure:last]
        )
        unseen = None
        if not bool(seen_MTS.all()):
            unseen = torch.zeros(seen_MTS.shape, dtype=wide).masked_fill_(~seen_MTS, MASKED).unsqueeze(1)
        return Tile(rows, slice(first, last), unseen)


def _members(batch: TokenBatch) -> tuple[np.ndarray, np.ndarray]:
    """Spans of queries and of their keys, [M,2,2] each: prompts, and runs of responses behind their prompt.

    A prompt with one response shares nothing: the two are one sequence. One that is skipped has no queries.
    """
    prompts = list(zip(batch.prompt_index_SP[:, 0].tolist(), batch.prompt_lengths_S.tolist(), strict=True))
    responses = list(zip(batch.response_index_RT[:, 0].tolist(), batch.response_lengths_R.tolist(), strict=True))
    of_prompt: list[list[tuple[int, int]]] = [[] for _ in prompts]
    for number, response in zip(batch.prompt_of_R.tolist(), responses, strict=True):
        of_prompt[number].append(response)
    nothing = (0, 0)
    queries, keys = [], []
    for prompt, answers in zip(prompts, of_prompt, strict=True):
        skipped = prompt[0] < batch.skipped
        if len(answers) == 1 and not skipped:
            queries.append((prompt, answers[0]))
            keys.append((prompt, answers[0]))
            continue
        if not skipped:
            queries.append((prompt, nothing))
            keys.append((prompt, nothing))
        for run in _runs(answers, prompt[1] // RUN):
            queries.append((run, nothing))
            keys.append((prompt, run))
    return np.array(queries), np.array(keys)


def _runs(responses: Sequence[tuple[int, int]], most: int) -> Iterator[tuple[int, int]]:
    """Neighbours in the row up to ``most`` tokens together, or one."""
    start, length = 0, 0
    for first, more in responses:
        if length and length + more > most:
            yield start, length
            length = 0
        start, length = start if length else first, length + more
    if length:
        yield start, length


def _split(members: np.ndarray, scores: int, few_sizes: bool) -> Iterator[np.ndarray]:
    """As many at a time as their scores may be, at least one; where sizes should be few, a power of two."""
    at_once = max(1, SCORES_AT_ONCE // scores)
    while len(members):
        count = min(at_once, len(members))
        count = power_of_two(count) if few_sizes else count
        yield members[:count]
        members = members[count:]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@contextmanager
def _products_of(dtype: torch.dtype) -> Iterator[None]:
    """Let products of float32 tensors whose values have ``dtype``'s digits alone be computed as such.

    In bfloat16 the library has faster ways for them, on any CPU that it knows; what it sums is float32 all the same.
    """
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    if dtype == torch.bfloat16:
        products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


class _Gathered:
    """What one pass over a block computes with: M sequences, H query heads, G key heads; b counts M·G, t H/G·T."""

    def __init__(self, scratch: Scratch, block: Block, query_HND: Tensor, key_GND: Tensor, value_GND: Tensor) -> None:
        self.block, self.scratch = block, scratch
        self.dtype, self.wide = query_HND.dtype, _wide(query_HND.dtype)
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
        layout: BlockAttend,
        scale: float,
        window: int | None,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.layout, ctx.scale, ctx.window = layout, scale, window
        if known_NHD is not None:
            return known_NHD.view_as(known_NHD)
        out_NHD = query.new_empty(query.shape[1] + 1, len(query), value.shape[-1])
        with _products_of(query.dtype):
            for block in layout.blocks(query, key, window):
                for heads, groups in block.heads:
                    part = _Gathered(layout.scratch, block, query[heads], key[groups], value[groups])
                    out_MHTD = part.like_queries("out", heads.stop - heads.start, value.shape[-1])
                    for tile in block.tiles:
                        weights_btS = part.narrowed(part.softmax(tile, scale))
                        part.unfold(weights_btS @ part.value_bSD[:, tile.keys].contiguous(), tile, out_MHTD)
                    block.queries.write(out_MHTD, out_NHD[:, heads])
        return out_NHD[:-1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        layout: BlockAttend = ctx.layout
        grad_out = grads[0].transpose(0, 1)
        wide = _wide(query.dtype)
        grad_query = query.new_empty(query.shape[1] + 1, len(query), query.shape[-1])
        grad_key = key.new_zeros(key.shape[1] + 1, len(key), key.shape[-1], dtype=wide)
        grad_value = value.new_zeros(value.shape[1] + 1, len(value), value.shape[-1], dtype=wide)
        with _products_of(query.dtype):
            for block in layout.blocks(query, key, ctx.window):
                for heads, groups in block.heads:
                    part = _Gathered(layout.scratch, block, query[heads], key[groups], value[groups])
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
        grad_out_MHTD *= block.queries.real_ML[:, None, :, None]  # padding says nothing of keys and values
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
