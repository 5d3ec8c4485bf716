"""The forward passes of a set above the token budget, one for each piece of its responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from mpo.logprobs.attention import KeptPrompt
from mpo.logprobs.batch import PromptResponses, TokenBatch, collate
from mpo.logprobs.packing import Piece
from mpo.logprobs.policy import ResponseLogps


class Indexed(Protocol):
    """Tokenised sets by position."""

    def __getitem__(self, i: int, /) -> PromptResponses: ...


def laid_out(sets: Indexed, pieces: Sequence[Piece], shares_prefix: bool) -> list[tuple[TokenBatch, KeptPrompt | None]]:
    """The layout of each piece of one set; where responses share their prompt the first alone has it.

    Returns:
        For each piece what :class:`mpo.logprobs.policy.PolicyModule` forwards, and the prompt that all have in common.
    """
    batches = [collate([sets[i]], [part]) for i, part in pieces]
    if not shares_prefix or len(batches) < 2:
        return [(batch, None) for batch in batches]
    prompt = KeptPrompt(len(sets[pieces[0][0]].prompt_ids))
    return [(batch.after_prompt() if number > 0 else batch, prompt) for number, batch in enumerate(batches)]


def joined(one: ResponseLogps, other: ResponseLogps) -> ResponseLogps:
    """Log-probs of two pieces of one set, each response in one of them."""
    steps = max(one.token_mask_BKT.shape[-1], other.token_mask_BKT.shape[-1])

    def long(values_1KT: Tensor) -> Tensor:
        return functional.pad(values_1KT, (0, steps - values_1KT.shape[-1]))

    return ResponseLogps(
        long(one.token_logps_BKT) + long(other.token_logps_BKT), long(one.token_mask_BKT) | long(other.token_mask_BKT)
    )
