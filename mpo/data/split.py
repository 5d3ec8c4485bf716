"""Seeded splits by prompt: held-out sets, a share of the training data, the rounds of the iterative regime.

All work on prompt keys (``prompt_key``), so sets with equal prompts always go to the same side, and a prompt's place
depends on the seed and its own text alone, not on the order of the data.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mpo.errors import ConfigError, DataError
from mpo.types import Message


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of the training and of the held-out sets, each ascending."""

    train: tuple[int, ...]
    heldout: tuple[int, ...]


def prompt_key(prompt: Sequence[Message]) -> str:
    """The prompt as compared for equality: case, width and white space don't count, nor does a system turn."""
    turns = (_said(turn) for turn in prompt if turn.role != "system")
    return " ".join(unicodedata.normalize("NFKC", "\n".join(turns)).casefold().split())


def _said(turn: Message) -> str:
    """Tool calls belong to what a conversation says; reasoning, as a system turn, only to how it came about."""
    return f"{turn.role}: {turn.content}" + (f" {turn.tool_calls}" if turn.tool_calls else "")


def split_heldout(keys: Sequence[str], heldout: float, seed: int) -> Split:
    """Hold out sets by prompt.

    A share (below 1) is decided for each prompt on its own, so that a prompt stays on its side when data is added; the
    share is met up to chance. A count (a whole number from 1) is met exactly. Raises ``ConfigError`` for a value
    outside its range, ``DataError`` where no whole prompts add up to the count.
    """
    if heldout < 0 or (heldout >= 1 and heldout != int(heldout)):
        raise ConfigError(
            f"{heldout} is neither a share nor a number", "data.heldout", "give a share below 1 or a whole number"
        )
    if heldout < 1:
        chosen = {key for key in set(keys) if _place(key, seed, "heldout") < heldout * 2**64}
    else:
        if heldout >= len(keys):
            remedy = f"give a number from 0 to {len(keys) - 1}"
            raise ConfigError(f"cannot hold out {heldout} of {len(keys)} sets", "data.heldout", remedy)
        chosen = _exactly(keys, int(heldout), seed)
    return Split(
        tuple(i for i, key in enumerate(keys) if key not in chosen),
        tuple(i for i, key in enumerate(keys) if key in chosen),
    )


def take_fraction(keys: Sequence[str], fraction: float, seed: int) -> tuple[int, ...]:
    """Ascending indices of a share of the sets (MPO figure 5); a smaller share is a subset of a larger one.

    The number is ``round(fraction * len(keys))``, at least 1. Raises ``ConfigError`` outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"{fraction} is not a share", "data.fraction", "give a number in (0, 1]")
    return take_number(keys, max(1, round(fraction * len(keys))), seed, "fraction")


def take_number(keys: Sequence[str], number: int, seed: int, purpose: str) -> tuple[int, ...]:
    """Ascending indices of so many sets, without replacement; a smaller number's are a subset of a larger one's, and
    those of different purposes are independent."""
    order = sorted(range(len(keys)), key=lambda i: (_place(keys[i], seed, purpose), i))
    return tuple(sorted(order[:number]))


def split_rounds(keys: Sequence[str], rounds: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Ascending indices for each round: all sets, no prompt in two rounds, prompt counts equal within one.

    Raises ``ConfigError`` for fewer than one round or more rounds than there are different prompts.
    """
    order = _in_order(set(keys), seed, "rounds")
    if not 1 <= rounds <= len(order):
        remedy = f"give a number from 1 to {len(order)}"
        raise ConfigError(f"cannot split {len(order)} different prompts into {rounds} rounds", "rounds", remedy)
    round_of = {key: position % rounds for position, key in enumerate(order)}
    return tuple(tuple(i for i, key in enumerate(keys) if round_of[key] == turn) for turn in range(rounds))


def _exactly(keys: Sequence[str], count: int, seed: int) -> set[str]:
    sizes: dict[str, int] = defaultdict(int)
    for key in keys:
        sizes[key] += 1
    chosen: set[str] = set()
    room = count
    for key in _in_order(sizes, seed, "heldout"):
        if sizes[key] <= room:
            chosen.add(key)
            room -= sizes[key]
    if room:
        what = f"cannot hold out exactly {count} sets without parting equal prompts"
        raise DataError(what, "data.heldout", f"ask for {count - room}, or give a share")
    return chosen


def _in_order(keys: set[str] | dict[str, int], seed: int, purpose: str) -> list[str]:
    return sorted(keys, key=lambda key: (_place(key, seed, purpose), key))


def _place(key: str, seed: int, purpose: str) -> int:
    """A prompt's place in [0, 2^64): even, and independent between seeds and purposes."""
    digest = hashlib.blake2b(f"{purpose}\0{seed}\0{key}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
