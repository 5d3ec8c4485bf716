"""Log-probs of many sets without gradient: the reference's, and those of held-out sets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from typing import Any, Protocol

import torch

from mpo.layout.batch import TokenBatch, collate
from mpo.layout.packing import Piece, SetSize, micro_batches
from mpo.policy.attention import KeptPrompt
from mpo.policy.module import ResponseLogps
from mpo.policy.pieces import Indexed, joined, laid_out


class FrozenPolicy(Protocol):
    """A :class:`mpo.policy.module.PolicyModule`, or one whose weights are spread over a group of processes."""

    @property
    def shares_prefix(self) -> bool: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def together(self) -> int:
        """Neighbouring processes that forward every batch together, with the same sets."""
        ...

    def eval(self) -> Any: ...
    def forwards(self, mine: int) -> int:
        """How many forward passes this process takes part in, where it has so many of its own."""
        ...

    def __call__(self, batch: TokenBatch, prompt: KeptPrompt | None = None) -> ResponseLogps: ...


def score_sets(
    policy: FrozenPolicy,
    sets: Indexed,
    indices: Sequence[int],
    micro_batch: int,
    micro_tokens: int,
    done: Collection[int] = (),
) -> Iterator[tuple[list[int], ResponseLogps]]:
    """Every response of the sets ``indices``, the largest sets first: some sets, and their log-probs.

    Args:
        policy: put into evaluation mode.
        micro_batch: most sets a forward pass.
        micro_tokens: most tokens a forward pass; a set above it is forwarded in pieces.
        done: sets that need no pass. The others keep the company they would have had, so that not a bit changes.
    """
    policy.eval()
    sizes = {i: SetSize.of(sets[i], policy.shares_prefix) for i in indices}
    whole, cut = micro_batches(indices, sizes, micro_batch, micro_tokens)
    cut = [pieces for pieces in cut if pieces[0][0] not in done]
    whole = [of_sets for of_sets in whole if not all(i in done for i in of_sets)]
    mine = len(whole) + sum(map(len, cut))
    missing = policy.forwards(mine) - mine
    with torch.no_grad():
        for pieces in cut:
            yield [pieces[0][0]], _in_pieces(policy, sets, pieces)
        for of_sets in whole:
            yield of_sets, policy(collate([sets[i] for i in of_sets]).to(policy.device))
        for _ in range(missing):
            policy(collate([]).to(policy.device))


def _in_pieces(policy: FrozenPolicy, sets: Indexed, pieces: Sequence[Piece]) -> ResponseLogps:
    forwards = laid_out(sets, pieces, policy.shares_prefix)
    return reduce(joined, (policy(one.batch.to(policy.device), one.prompt) for one in forwards))
