"""Log-probs of many sets without gradient: the reference's, and those of held-out sets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from mpo.logprobs.batch import PromptResponses, collate
from mpo.logprobs.packing import SetSize, micro_batches
from mpo.logprobs.policy import PolicyModule, ResponseLogps


class Indexed(Protocol):
    """Tokenised sets by position."""

    def __getitem__(self, i: int, /) -> PromptResponses: ...


def score_sets(
    policy: PolicyModule,
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
    whole, pieces = micro_batches(indices, sizes, micro_batch, micro_tokens)
    pieces = [(i, part) for i, part in pieces if i not in done]
    whole = [of_sets for of_sets in whole if not all(i in done for i in of_sets)]
    with torch.no_grad():
        seen: ResponseLogps | None = None
        for number, (i, part) in enumerate(pieces):
            logps = policy(collate([sets[i]], [part]).to(policy.device))
            seen = logps if seen is None else joined(seen, logps)
            if number + 1 == len(pieces) or pieces[number + 1][0] != i:
                yield [i], seen
                seen = None
        for of_sets in whole:
            yield of_sets, policy(collate([sets[i] for i in of_sets]).to(policy.device))


def joined(one: ResponseLogps, other: ResponseLogps) -> ResponseLogps:
    """Log-probs of two pieces of one set, each response in one of them."""
    steps = max(one.token_mask_BKT.shape[-1], other.token_mask_BKT.shape[-1])

    def long(values_1KT: Tensor) -> Tensor:
        return functional.pad(values_1KT, (0, steps - values_1KT.shape[-1]))

    return ResponseLogps(
        long(one.token_logps_BKT) + long(other.token_logps_BKT), long(one.token_mask_BKT) | long(other.token_mask_BKT)
    )
