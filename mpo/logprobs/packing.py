"""Which process forwards which sets of a global batch, and in which micro-batches: balanced, within a token budget.

A set above the budget is cut into pieces of its responses, each with the prompt before it: the loss sees the model only
through its log-probs, so pieces can be forwarded one after the other (:mod:`mpo.train.window`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpo.logprobs.batch import PromptResponses

Piece = tuple[int, list[int]]
"""A set and the indices of some of its responses."""


@dataclass(frozen=True)
class SetSize:
    """Tokens of a set's prompt, and of each response that is forwarded, by its index."""

    prompt: int
    responses: Mapping[int, int]

    @classmethod
    def of(cls, one: PromptResponses, shares_prefix: bool, kept: Sequence[int] | None = None) -> SetSize:
        """The size of a set, or of some of its responses; in separate rows each of them has the prompt, and padding."""
        responses = range(len(one.response_ids)) if kept is None else kept
        lengths = {k: len(one.response_ids[k]) for k in responses}
        if shares_prefix:
            return cls(len(one.prompt_ids), lengths)
        row = len(one.prompt_ids) + max(lengths.values(), default=0)
        return cls(0, dict.fromkeys(lengths, row))

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
    pieces: list[Piece | None]


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
    of_rank: list[list[int]] = [[] for _ in range(world_size)]
    load = [0] * world_size
    for i in _largest_first(batch, sizes):  # each to the process with the least to do
        rank = min(range(world_size), key=lambda r: (load[r], r))
        of_rank[rank].append(i)
        load[rank] += sizes[i].tokens
    parts = [micro_batches(mine, sizes, micro_batch, micro_tokens) for mine in of_rank]
    most_whole, most_pieces = (max(len(part[which]) for part in parts) for which in (0, 1))
    return [
        Share(whole + [[]] * (most_whole - len(whole)), [*pieces, *[None] * (most_pieces - len(pieces))])
        for whole, pieces in parts
    ]


def micro_batches(
    sets: Sequence[int], sizes: Mapping[int, SetSize], micro_batch: int, micro_tokens: int
) -> tuple[list[list[int]], list[Piece]]:
    """Micro-batches of whole sets, like lengths beside each other, and the pieces of the sets above the budget."""
    order = _largest_first(sets, sizes)
    large = [i for i in order if sizes[i].tokens > micro_tokens]
    pieces = [(i, part) for i in large for part in _pieces(sizes[i], micro_tokens)]
    return _whole(order[len(large) :], sizes, micro_batch, micro_tokens), pieces


def _largest_first(sets: Sequence[int], sizes: Mapping[int, SetSize]) -> list[int]:
    return sorted(sets, key=lambda i: -sizes[i].tokens)


def _whole(order: Sequence[int], sizes: Mapping[int, SetSize], micro_batch: int, micro_tokens: int) -> list[list[int]]:
    parts: list[list[int]] = []
    tokens = 0
    for i in order:
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
