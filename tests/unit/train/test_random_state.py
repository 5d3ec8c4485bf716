"""What is drawn at random follows from a seed, or from a state that was kept."""

from __future__ import annotations

import random

import numpy as np
import torch

from mpo.train.random_state import random_state, restore_random_state, seed_random_state, unchanged_random_state


def drawn() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_a_seed_decides_what_is_drawn() -> None:
    with unchanged_random_state():
        seed_random_state(3)
        first = drawn()
        seed_random_state(4)
        second = drawn()
        seed_random_state(3)
        assert drawn() == first
        assert all(one != other for one, other in zip(first, second, strict=True))
        seed_random_state(2**40)  # more than numpy takes


def test_a_state_is_gone_on_with() -> None:
    with unchanged_random_state():
        state = random_state()
        first = drawn()
        restore_random_state(state)
        assert drawn() == first
