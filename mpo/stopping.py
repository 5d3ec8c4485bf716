"""A polite request to stop, SIGTERM: the run ends as it does after Ctrl-C."""

from __future__ import annotations

import threading
from types import FrameType
from typing import NoReturn

from mpo.errors import Stopped

_asked = threading.Event()


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """The signal's handler, wherever the run is."""
    _asked.set()
    raise Stopped


def stop_if_asked() -> None:
    """Raise again what may have been lost: of an exception in a weak reference's callback Python only prints a line."""
    if _asked.is_set():
        raise Stopped
