"""Mismatched prompt/response pairs, from which KTO estimates its reference point (arXiv 2402.01306, section 4.1)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpo.errors import DataError
from mpo.logprobs.batch import PromptResponses


@dataclass(frozen=True, slots=True)
class MismatchedPair:
    """One prompt with one response of another set, in the shape of a tokenised set."""

    id: str
    prompt_ids: np.ndarray
    response_ids: tuple[np.ndarray]


def mismatched_pairs(counts: Sequence[int], seed: int) -> list[tuple[int, int]]:
    """For each set i, (set whose prompt is used, index of set i's response): the prompt of set i + 1, cyclically.

    Args:
        counts: responses of each set.
        seed: of the draw of one response a set.

    Raises:
        DataError: fewer than two sets.
    """
    if len(counts) < 2:
        raise DataError("one set has no other prompt to be mismatched with", remedy="give KTO two sets or more")
    draw = random.Random(seed)
    return [((i + 1) % len(counts), draw.randrange(count)) for i, count in enumerate(counts)]


def mismatched_pair(
    response_of: PromptResponses, prompt_of: PromptResponses, response: int, max_tokens: int
) -> MismatchedPair:
    """Response ``response`` of the one set under the prompt of the other, cut where both pass ``max_tokens``.

    The limit that matched pairs were cut to does not hold for these, and a model may know no later positions.
    """
    room = max_tokens - len(prompt_of.prompt_ids)
    return MismatchedPair(response_of.id, prompt_of.prompt_ids, (response_of.response_ids[response][:room],))
