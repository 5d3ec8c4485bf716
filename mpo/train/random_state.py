"""The states of all random number generators of a process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_random_state(seed: int) -> None:
    """Let what Python, numpy and torch draw follow from ``seed``, on every device: the first weights of adapters, and
    whatever a loss of the user's draws."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Of Python, numpy and torch, in values that :mod:`mpo.train.files` can write."""
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {"python": random.getstate(), "numpy": (name, torch.from_numpy(np.asarray(keys)), *rest)}
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return state | {"torch": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: dict[str, Any]) -> None:
    """Go back to what :func:`random_state` has returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Whatever the block draws, what is drawn after it is what would have been drawn without it."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)
