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
    return tuple(numbered(hashlib.sha256(prompt_key(one.prompt).encode()).hexdigest()[:16] for one in sets))


def numbered(keys: Iterable[str]) -> list[str]:
    """``keys``, of equal ones the later with their count."""
    seen: Counter[str] = Counter()
    found = []
    for key in keys:
        seen[key] += 1
        found.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return found
