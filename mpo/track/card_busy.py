"""How much of a stage's time its card was at work, as the driver reports it. No torch of its own."""

from __future__ import annotations

import statistics
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

EVERY_S = 1.0


class CardBusy:
    """Asks from a thread of its own, once in a while, how busy the card is; of a CPU there is nothing to ask.

    Not run on a card yet.

    Args:
        utilization: percent, or None where it is not known.
        every_s: seconds between two questions.
    """

    def __init__(self, utilization: Callable[[], float | None] | None = None, every_s: float = EVERY_S) -> None:
        self._utilization = utilization or card_utilization
        self._every_s = every_s
        self._seen: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        while not self._ended.wait(self._every_s):
            value = self._utilization()
            if value is not None:
                self._seen.append(value / 100)

    @property
    def share(self) -> float | None:
        """Mean share of the time so far in which the card was at work, 0 to 1; None where it was never known."""
        return statistics.fmean(self._seen) if self._seen else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()


def card_utilization() -> float | None:
    """Percent of the last moments in which kernels ran on this process's card, from NVML through torch.

    None before the process has used a card, as asking must not be what sets one up, and without NVML's Python package.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        return float(torch.cuda.utilization())
    except (ImportError, RuntimeError):  # no NVML here
        return None
