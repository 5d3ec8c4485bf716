"""Which process forwards which sets of a global batch, and in which micro-batches: balanced, within a token budget.

A set above the budget is cut into pieces of its responses, the first with the prompt before it: the loss sees the model
only through its log-probs, so pieces can be forwarded one after the other (:mod:`mpo.train.window`).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpo.layout.batch import PromptResponses

Piece = tuple[int, list[int]]
"""A set and the indices of some of its responses."""


@dataclass(frozen=True)
class SetSize:
    """Tokens of a set's prompt, and of each response that is forwarded, by its index.

    In separate rows ``row`` is the longest one's length, and every response counts as one of it; else 0.
    """

    prompt: int
    responses: Mapping[int, int]
    row: int = 0

    @classmethod
    def of(cls, one: PromptResponses, shares_prefix: bool, kept: Sequence[int] | None = None) -> SetSize:
        """The size of a set, or of some of its responses."""
        responses = range(len(one.response_ids)) if kept is None else kept
        lengths = {k: len(one.response_ids[k]) for k in responses}
        if shares_prefix:
            return cls(len(one.prompt_ids), lengths)
        row = len(one.prompt_ids) + max(lengths.values(), default=0)
        return cls(0, dict.fromkeys(lengths, row), row)

    @property
    def tokens(self) -> int:
        """Tokens of the set, its prompt once."""
        return self.prompt + sum(self.responses.values())


@dataclass(frozen=True)
class Share:
    """One process's part of a global batch; all processes have as many micro-batches, whole ones and pieces.

    Attributes:
        whole: micro-batches of whole sets; empty ones at the end of a smaller share.
        cut: for every set above the budget its pieces; None fills up a smaller share.
    """

    whole: list[list[int]]
    cut: list[list[Piece | None]]


def shares(
    batch: Sequence[int], sizes: Mapping[int, SetSize], micro_batch: int, micro_tokens: int, world_size: int
) -> list[Share]:
    """Every process's share; the same for the same arguments, in every process.

    Args:
        batch: sets of the global batch.
        sizes: of each of them.
        micro_batch: most sets that are forwarded at once.
        micro_tokens: most tokens that are forwarded at once; a single response is never cut.
    """
    if any(sizes[i].row for i in batch):
        dealt = _dealt(batch, sizes, world_size)
        parts = [micro_batches(mine, sizes, micro_batch, micro_tokens) for mine in dealt]
    else:
        large = _dealt([i for i in batch if sizes[i].tokens > micro_tokens], sizes, world_size)
        others = [i for i in batch if sizes[i].tokens <= micro_tokens]
        even = _even(others, sizes, micro_batch, micro_tokens, world_size)
        least_first = sorted(range(world_size), key=lambda rank: sum(sizes[i].tokens for i in large[rank]))
        whole = {rank: even[place] for place, rank in enumerate(least_first)}
        parts = [
            (whole[rank], micro_batches(mine, sizes, micro_batch, micro_tokens)[1]) for rank, mine in enumerate(large)
        ]
    most_whole, most_cut = (max(len(part[which]) for part in parts) for which in (0, 1))
    lists = [cut + [[]] * (most_cut - len(cut)) for _, cut in parts]
    longest = [max(map(len, alike)) for alike in zip(*lists, strict=True)]
    return [
        Share(
            whole + [[]] * (most_whole - len(whole)),
            [[*pieces, *[None] * (most - len(pieces))] for pieces, most in zip(cut, longest, strict=True)],
        )
        for (whole, _), cut in zip(parts, lists, strict=True)
    ]


def _dealt(batch: Sequence[int], sizes: Mapping[int, SetSize], world_size: int) -> list[list[int]]:
    """Each set to the process with the least to do, the largest first."""
    of_rank: list[list[int]] = [[] for _ in range(world_size)]
    load = [0] * world_size
    for i in _largest_first(batch, sizes):
        rank = min(range(world_size), key=lambda r: (load[r], r))
        of_rank[rank].append(i)
        load[rank] += sizes[i].tokens
    return of_rank


def _even(
    sets: Sequence[int], sizes: Mapping[int, SetSize], micro_batch: int, micro_tokens: int, world_size: int
) -> list[list[list[int]]]:
    """Micro-batches of so many processes, the one with the most tokens first.

    They are as few as can be, and at a time all processes have about as many tokens.

    Processes that exchange weights or gradients wait for the one with the most tokens in each micro-batch.
    """
    if not sets:
        return [[] for _ in range(world_size)]
    tokens = sum(sizes[i].tokens for i in sets)
    each = max(-(-tokens // (world_size * micro_tokens)), -(-len(sets) // (world_size * micro_batch)))
    while (bins := _filled(sets, sizes, micro_batch, micro_tokens, world_size * each)) is None:
        each += 1
    bins.sort(key=lambda one: -sum(sizes[i].tokens for i in one))
    return [bins[rank::world_size] for rank in range(world_size)]


def _filled(
    sets: Sequence[int], sizes: Mapping[int, SetSize], micro_batch: int, micro_tokens: int, count: int
) -> list[list[int]] | None:
    """So many micro-batches, each set in the one with the fewest tokens, the largest first; None if some do not fit."""
    bins: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, number) for number in range(count)]  # a heap
    for i in _largest_first(sets, sizes):
        while emptiest and len(bins[emptiest[0][1]]) == micro_batch:
            heapq.heappop(emptiest)
        if not emptiest or emptiest[0][0] + sizes[i].tokens > micro_tokens:
            return None
        tokens, number = emptiest[0]
        bins[number].append(i)
        heapq.heapreplace(emptiest, (tokens + sizes[i].tokens, number))
    return bins


def micro_batches(
    sets: Sequence[int], sizes: Mapping[int, SetSize], micro_batch: int, micro_tokens: int
) -> tuple[list[list[int]], list[list[Piece]]]:
    """Micro-batches of whole sets, the fullest first, and each set above the budget in its pieces."""
    order = _largest_first(sets, sizes)
    large = [i for i in order if sizes[i].tokens > micro_tokens]
    cut = [[(i, part) for part in _pieces(sizes[i], micro_tokens)] for i in large if sizes[i].responses]
    others = order[len(large) :]
    if any(sizes[i].row for i in others):  # padded to the longest of them: like lengths beside each other
        return _whole(sorted(others, key=lambda i: -sizes[i].row), sizes, micro_batch, micro_tokens), cut
    return _even(others, sizes, micro_batch, micro_tokens, 1)[0], cut


def _largest_first(sets: Sequence[int], sizes: Mapping[int, SetSize]) -> list[int]:
    return sorted(sets, key=lambda i: -sizes[i].tokens)


def _whole(order: Sequence[int], sizes: Mapping[int, SetSize], micro_batch: int, micro_tokens: int) -> list[list[int]]:
    parts: list[list[int]] = []
    for i in order:
        if not parts or len(parts[-1]) == micro_batch or _tokens([*parts[-1], i], sizes) > micro_tokens:
            parts.append([])
        parts[-1].append(i)
    return parts


def _tokens(part: Sequence[int], sizes: Mapping[int, SetSize]) -> int:
    """Tokens of a forward pass over some sets: in separate rows all are as long as the longest."""
    longest = max(sizes[i].row for i in part)
    if longest == 0:
        return sum(sizes[i].tokens for i in part)
    return longest * sum(len(sizes[i].responses) for i in part)


def _pieces(size: SetSize, micro_tokens: int) -> list[list[int]]:
    """Responses of each piece, filled up one by one with the longest first; what is left over goes with the prompt.

    That piece is the first. Training forwards the last one, a full one, only once.
    """
    parts: list[list[int]] = []
    tokens = 0
    for k in sorted(size.responses, key=lambda k: (-size.responses[k], k)):
        if not parts or tokens + size.responses[k] > micro_tokens:
            parts.append([])
            tokens = 0
        parts[-1].append(k)
        tokens += size.responses[k]
    if len(parts[-1]) > 1 and size.prompt + tokens > micro_tokens:
        parts.append([parts[-1].pop()])
    return parts[::-1]
