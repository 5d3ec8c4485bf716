"""Which blocks the CPU back end computes attention in: a batch's responses taken together, tiles of their queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mpo.layout.batch import TokenBatch
from mpo.layout.shape_buckets import KEYS, QUERIES, few_sizes, power_of_two, stepped
from mpo.policy.cpu.groups import group
from mpo.policy.cpu.sequences import Sequences
from mpo.policy.visibility import Visibility

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


class BlockPlan:
    """The blocks of one batch's row, worked out once for all layers of a kind."""

    def __init__(self, batch: TokenBatch) -> None:
        self._visibility = Visibility.of(batch)
        self._queries, self._keys = _members(batch)
        self._row, self._skipped = batch.tokens, batch.skipped
        self._blocks: dict[tuple[int, int, int | None], list[Block]] = {}

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
            [self._tile(queries, keys, of_queries, window, widest(like.dtype)) for of_queries in tiles_of],
        )

    def _tile(self, queries: Sequences, keys: Sequences, rows: slice, window: int | None, wide: torch.dtype) -> Tile:
        before_M = keys.lengths_M - queries.lengths_M  # of a response its prompt, of a prompt nothing
        alone = not before_M.any()
        last = rows.stop if alone else keys.length
        first = 0
        always_visible = int(np.where(before_M > 0, before_M, rows.start + 1).min())  # the keys before it
        if window is not None:
            first = max(0, int(before_M.min()) + (rows.start if alone else 0) - window + 1)
            always_visible = first
        seen_MTS = (
            self._visibility.sees(
                self._skipped + queries.index_ML[:, rows, None], keys.index_ML[:, None, always_visible:last], window
            )
            & keys.real_ML[:, None, always_visible:last]
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


def widest(dtype: torch.dtype) -> torch.dtype:
    """What scores and sums are computed in: float32, or more if the values are."""
    return torch.promote_types(dtype, torch.float32)
