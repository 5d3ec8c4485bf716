"""Standard streams that are closed, or whose reader is gone."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from mpo.errors import UserError

_NAMES = ("stdin", "stdout", "stderr")


def open_closed() -> None:
    """Open ``/dev/null`` for each standard stream that is closed: the next file would get its number, and its text."""
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def abandon(stream: TextIO) -> None:
    """Let ``stream`` lead nowhere, so that what it still holds can be written at the end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def unwritable(stream: TextIO, error: OSError) -> UserError:
    """What to say of a stream that was asked for and takes no text; it leads nowhere from now on."""
    name = "standard output" if stream is sys.stdout else "standard error"
    abandon(stream)
    return UserError(f"it cannot be written to ({error.strerror})", name, "send it elsewhere")


def say(line: str) -> None:
    """Print a line on standard error, if that still leads anywhere."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        abandon(sys.stderr)
