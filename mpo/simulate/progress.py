"""Progress callbacks of simulations."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with how many parts are done and how many there are."""


def quiet(done: int, total: int) -> None:
    """Reports nothing."""
