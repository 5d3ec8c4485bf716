"""Mismatched prompt/response pairs, from which KTO estimates its reference point (arXiv 2402.01306, section 4.1)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpo.errors import DataError
from mpo.layout.batch import PromptResponses


@dataclass(frozen=True, slots=True)
class MismatchedPair:
    """One prompt with one response of another set, in the shape of a tokenised set."""

    id: str
    prompt_ids: np.ndarray
    response_ids: tuple[np.ndarray]


def mismatched_pairs(prompts: Sequence[bytes], counts: Sequence[int], seed: int) -> list[tuple[int, int]]:
    """For each set i, (set whose prompt is used, index of set i's response).

    The prompt is that of the next set, cyclically, whose prompt is another one: files of pairs hold several sets of one
    prompt side by side.

    Args:
        prompts: what distinguishes each set's prompt from others.
        counts: responses of each set.
        seed: of the draw of one response a set.

    Raises:
        DataError: all sets have one prompt.
    """
    sets = len(prompts)
    change = next((i for i in range(sets) if prompts[i] != prompts[(i + 1) % sets]), None)
    if change is None:
        raise DataError("no set has another prompt to be mismatched with", remedy="give KTO two prompts or more")
    other = [0] * sets
    for i in (*range(change, -1, -1), *range(sets - 1, change, -1)):  # backwards: a set's successor is known already
        after = (i + 1) % sets
        other[i] = after if prompts[i] != prompts[after] else other[after]
    draw = random.Random(seed)
    return [(other[i], draw.randrange(count)) for i, count in enumerate(counts)]


def mismatched_pair(
    response_of: PromptResponses, prompt_of: PromptResponses, response: int, max_tokens: int
) -> MismatchedPair:
    """Response ``response`` of the one set under the prompt of the other, cut where both pass ``max_tokens``.

    The limit that matched pairs were cut to does not hold for these, and a model may know no later positions.
    """
    room = max_tokens - len(prompt_of.prompt_ids)
    return MismatchedPair(response_of.id, prompt_of.prompt_ids, (response_of.response_ids[response][:room],))
