"""How far a worker is, handed to the orchestrator through one small file.

A worker never prints: it replaces a JSON file, and the orchestrator reads it whenever it likes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

INTERVAL_S = 0.2
"""Seconds between two writes at least: a worker that is faster than this loses nothing to its progress file."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` in ``unit``, with a few numbers or words worth showing (``fields``), such as the loss.

    ``first`` is the count that this process began the work of that total and unit with, not 0 after a resume, and
    ``seconds`` the time since then.
    """

    done: int
    total: int
    unit: str
    first: int
    seconds: float
    fields: dict[str, float | str]


class ProgressWriter:
    """The worker's side: one writer a file. Use as a context manager, or :meth:`close`, so that the last count shows.

    Args:
        path: the file to replace; its folder is created at the first update.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: float | None = None
        self._first = self._last = 0
        self._work = (0, "")
        self._written = float("-inf")
        self._pending: Progress | None = None

    def update(self, done: int, total: int, unit: str, **fields: float | str) -> None:
        """Shows ``done`` of ``total`` (0: unknown); at most five times a second, but the end is always shown."""
        now = time.monotonic()
        if (total, unit) != self._work or self._started is None or done < self._last:
            self._started, self._first, self._work = now, done, (total, unit)
        self._last = done
        self._pending = Progress(done, total, unit, self._first, now - self._started, dict(fields))
        if now - self._written >= INTERVAL_S or 0 < total <= done:
            self.close()

    def close(self) -> None:
        """Writes the newest update if it is not in the file yet; left out where the disk refuses it."""
        if self._pending is not None:
            # Renamed into place, so that no reader meets half a file; not synced to disk, which a slow disk would feel.
            temporary = self._path.with_name(f".{self._path.name}.new")
            with contextlib.suppress(OSError):  # what only shows how far the work is must not end it
                self._path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_text(json.dumps(asdict(self._pending)), encoding="utf-8")
                os.replace(temporary, self._path)
            self._pending, self._written = None, time.monotonic()

    def __enter__(self) -> ProgressWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ProgressReader:
    """The orchestrator's side: reads what a :class:`ProgressWriter` wrote to ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Progress | None:
        """The newest progress, or None before the first update."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Progress(**json.loads(text))
