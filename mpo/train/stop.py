"""SIGTERM ends a run after the step in flight."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

STOPPED = 143
"""Exit status of a run that was asked to stop and saved a checkpoint: 128 + SIGTERM."""


class StopSignal:
    """While entered, SIGTERM sets ``asked`` in place of killing the process."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignal:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
