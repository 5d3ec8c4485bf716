"""The forward passes of a set above the token budget, one for each piece of its responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor
from torch.nn import functional

from mpo.layout.batch import PromptResponses, TokenBatch, collate
from mpo.layout.packing import Piece
from mpo.policy.attention import KeptOutputs, KeptPrompt
from mpo.policy.module import FirstPass, ResponseLogps


class Indexed(Protocol):
    """Tokenised sets by position."""

    def __getitem__(self, i: int, /) -> PromptResponses: ...


class Forward(NamedTuple):
    """What :class:`mpo.policy.module.PolicyModule` takes of a piece: its layout, the prompt that all have in common,
    and what its first pass leaves for a second."""

    batch: TokenBatch
    prompt: KeptPrompt | None
    first: FirstPass


def laid_out(sets: Indexed, pieces: Sequence[Piece], shares_prefix: bool, keep: int = 0) -> list[Forward]:
    """The forward passes of the pieces of one set; where responses share their prompt the first alone has it.

    Args:
        keep: of so many tokens at most the pieces keep what attention computes, for their second pass.
    """
    batches = [collate([sets[i]], [part]) for i, part in pieces]
    prompt = None
    if shares_prefix and len(batches) > 1:
        prompt = KeptPrompt(len(sets[pieces[0][0]].prompt_ids))
        batches[1:] = [batch.after_prompt() for batch in batches[1:]]
    forwards = []
    for batch in batches:
        keep -= batch.tokens - batch.skipped
        forwards.append(Forward(batch, prompt, FirstPass(KeptOutputs() if keep >= 0 else None)))
    return forwards


def joined(one: ResponseLogps, other: ResponseLogps) -> ResponseLogps:
    """Log-probs of two pieces of one set, each response in one of them."""
    steps = max(one.token_mask_BKT.shape[-1], other.token_mask_BKT.shape[-1])

    def long(values_1KT: Tensor) -> Tensor:
        return functional.pad(values_1KT, (0, steps - values_1KT.shape[-1]))

    square_sums_1KT = None
    if one.token_square_sums_BKT is not None and other.token_square_sums_BKT is not None:
        square_sums_1KT = long(one.token_square_sums_BKT) + long(other.token_square_sums_BKT)
    return ResponseLogps(
        long(one.token_logps_BKT) + long(other.token_logps_BKT),
        long(one.token_mask_BKT) | long(other.token_mask_BKT),
        square_sums_1KT,
    )
