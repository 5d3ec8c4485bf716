"""Which process forwards which sets of a global batch, and in which micro-batches: balanced, within a token budget.

A set above the budget is cut into pieces of its responses, each with the prompt before it: the loss sees the model only
through its log-probs, so pieces can be forwarded one after the other (:mod:`mpo.train.window`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SetSize:
    """Tokens of a set's prompt, and of each response that is forwarded, by its index."""

    prompt: int
    responses: Mapping[int, int]

    @property
    def tokens(self) -> int:
        """Tokens of the set, its prompt once."""
        return self.prompt + sum(self.responses.values())


@dataclass(frozen=True)
class Share:
    """One process's part of a global batch; all processes have as many micro-batches of each kind.

    Attributes:
        whole: micro-batches of whole sets; empty ones at the end of a smaller share.
        pieces: for every set above the budget its pieces, each (set, indices of responses); None fills up a smaller
            share.
    """

    whole: list[list[int]]
    pieces: list[tuple[int, list[int]] | None]


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
    # The largest first, to the process with the least to do: like lengths end up beside each other as well.
    order = sorted(range(len(batch)), key=lambda place: (-sizes[batch[place]].tokens, place))
    of_rank: list[list[int]] = [[] for _ in range(world_size)]
    load = [0] * world_size
    for place in order:
        rank = min(range(world_size), key=lambda r: (load[r], r))
        of_rank[rank].append(batch[place])
        load[rank] += sizes[batch[place]].tokens
    small = [[i for i in mine if sizes[i].tokens <= micro_tokens] for mine in of_rank]
    whole = [_micro_batches(mine, sizes, micro_batch, micro_tokens) for mine in small]
    pieces = [
        [(i, part) for i in mine if sizes[i].tokens > micro_tokens for part in _pieces(sizes[i], micro_tokens)]
        for mine in of_rank
    ]
    most_whole, most_pieces = max(map(len, whole)), max(map(len, pieces))
    return [
        Share(w + [[]] * (most_whole - len(w)), [*p, *[None] * (most_pieces - len(p))])
        for w, p in zip(whole, pieces, strict=True)
    ]


def _micro_batches(
    mine: Sequence[int], sizes: Mapping[int, SetSize], micro_batch: int, micro_tokens: int
) -> list[list[int]]:
    parts: list[list[int]] = []
    tokens = 0
    for i in mine:
        if not parts or len(parts[-1]) == micro_batch or tokens + sizes[i].tokens > micro_tokens:
            parts.append([])
            tokens = 0
        parts[-1].append(i)
        tokens += sizes[i].tokens
    return parts


def _pieces(size: SetSize, micro_tokens: int) -> list[list[int]]:
    parts: list[list[int]] = []
    tokens = 0
    for k in sorted(size.responses, key=lambda k: (-size.responses[k], k)):
        if not parts or tokens + size.responses[k] > micro_tokens:
            parts.append([])
            tokens = size.prompt
        parts[-1].append(k)
        tokens += size.responses[k]
    return parts
