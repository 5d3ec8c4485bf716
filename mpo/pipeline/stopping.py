"""Requests to stop: Ctrl-C, SIGTERM, and SIGHUP where the terminal is closed."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from mpo.errors import Stopped

STOPPED_CODE = 143
"""Exit status of a run that was asked to stop."""
AGAIN_S = 0.05
"""Seconds until a request whose exception was lost is made again."""
MESSAGE = "mpo: stopped; the same command goes on from where it was\n"

_asked = threading.Event()
_building = threading.Event()


def take_signals() -> None:
    """From now on a request stops the run; a signal that was ignored when it began, as below ``nohup``, still is."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    # At its very end Python gives a signal its default action back: a request then would make a failure of a finished
    # run. Registered first, this comes after what libraries do at the end, which a request still interrupts.
    atexit.register(_ignore_signals)
    sys.unraisablehook = _hook


def building() -> None:
    """A stage is about to be built: from now on a request ends the run in order, as an exception."""
    _building.set()


def stop(number: int, frame: FrameType | None) -> None:
    """The signal's handler, wherever the run is."""
    _asked.set()
    if not _building.is_set():  # there is nothing to be saved yet, and a library's import would tell its own story
        exit_stopped()
    raise Stopped


def asked() -> bool:
    """Whether the run was asked to stop: a library may have made an error of its own of that."""
    return _asked.is_set()


def stop_if_asked() -> None:
    """Raise again what may have been lost: of an exception in a weak reference's callback Python only prints a line."""
    if asked():
        raise Stopped


def exit_stopped() -> NoReturn:
    """End this process now, without whatever Python and its libraries do at their end."""
    with contextlib.suppress(OSError):
        os.write(2, MESSAGE.encode())
    os._exit(STOPPED_CODE)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _hook(lost: Any) -> None:
    number = getattr(lost.exc_value, "sigval", None)  # of what torch's agent raises while a group is at work
    if isinstance(number, signal.Signals):  # it would wait for the group's end: ask again, outside of this callback
        again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
    elif not isinstance(lost.exc_value, Stopped):
        sys.__unraisablehook__(lost)
