"""What prompts are known by in every run, so that runs can be compared prompt by prompt. No torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from mpo.data.split import prompt_key
from mpo.types import ResponseSet


def prompt_keys(sets: Iterable[ResponseSet]) -> tuple[str, ...]:
    """For each set 16 hexadecimal digits of its prompt's hash, of equal prompts (see :func:`mpo.data.split.prompt_key`)
    the later ones with their count: ``…#2``."""
    seen: Counter[str] = Counter()
    keys = []
    for one in sets:
        digest = hashlib.sha256(prompt_key(one.prompt).encode()).hexdigest()[:16]
        seen[digest] += 1
        keys.append(digest if seen[digest] == 1 else f"{digest}#{seen[digest]}")
    return tuple(keys)
