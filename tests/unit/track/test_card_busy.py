"""How busy a card was: the mean of what was seen, and nothing where nothing was."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from mpo.track.card_busy import CardBusy, card_utilization


def watched(values: list[float | None]) -> float | None:
    """What is said of a card that reports these values, after it has reported them all."""
    left, done = iter(values), threading.Event()

    def utilization() -> float | None:
        for value in left:
            return value
        done.set()
        return None

    with CardBusy(utilization, 0.001) as card:
        assert done.wait(10)
    return card.share


def test_it_is_the_mean_of_what_the_driver_says() -> None:
    assert watched([100.0, 50.0, None, 0.0]) == pytest.approx(0.5)


def test_where_nothing_is_known_there_is_nothing() -> None:
    assert watched([None, None]) is None


def test_it_ends_with_its_stage_also_with_one_that_fails() -> None:
    with pytest.raises(RuntimeError, match="the stage"), CardBusy(lambda: 1.0, 0.001):
        raise RuntimeError("the stage")
    deadline = time.monotonic() + 5
    while any("_follow" in thread.name for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if "_follow" in thread.name]


def test_asking_sets_up_no_card() -> None:
    assert card_utilization() is None and not torch.cuda.is_initialized()
