"""An array that several processes fill bit by bit, and go on filling after they were stopped."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from mpo.artifacts import whole_lines

SAVE_S = 20.0
"""Seconds of work that a kill may cost."""


class PartlyWritten:
    """What one process adds to the float32 array ``name.npy``: numbers, and notes of the items that they belong to.

    Every process appends to files of its own, because machines that write into one file over a network may restore each
    other's old pages; :func:`join` makes the array of them.

    Args:
        path: of the array.
        rank: of this process; all of them are here before any writes.

    Attributes:
        done: items that are written, whoever wrote them.
    """

    def __init__(self, path: Path, rank: int) -> None:
        self.done = {item for notes in path.parent.glob(f"{path.name}.notes-*") for item, _, _ in _read(notes)}
        own = path.with_name(f"{path.name}.notes-{rank}")
        self._notes = own.open("ab")
        self._notes.truncate(len(whole_lines(own)))
        self._numbers = _numbers_of(own).open("ab")
        self._numbers.truncate(4 * sum(count for _, _, count in _read(own)))
        self._unnoted: list[tuple[int, int, int]] = []
        self._saved = time.monotonic()

    def write(self, item: int, start: int, values: np.ndarray[Any, Any]) -> None:
        """Add ``item``'s numbers, which stand at ``start`` in the array."""
        self._numbers.write(values.astype(np.float32).tobytes())
        self._unnoted.append((item, start, len(values)))
        if time.monotonic() - self._saved > SAVE_S:
            self.save()

    def save(self) -> None:
        """Note what has reached the disk."""
        self._numbers.flush()
        os.fsync(self._numbers.fileno())
        self._notes.writelines(b"%d %d %d\n" % note for note in self._unnoted)
        self._notes.flush()
        os.fsync(self._notes.fileno())
        self._unnoted.clear()
        self._saved = time.monotonic()

    def __enter__(self) -> PartlyWritten:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()
        self._numbers.close()
        self._notes.close()


def join(path: Path, length: int) -> None:
    """Make the array of ``length`` numbers from what all processes have written; there unless it is already."""
    if path.exists():
        return
    part = path.with_name(f"{path.name}.part")
    array = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(length,))
    for notes in sorted(path.parent.glob(f"{path.name}.notes-*")):
        numbers, at = np.fromfile(_numbers_of(notes), dtype=np.float32), 0
        for _, start, count in _read(notes):
            array[start : start + count] = numbers[at : at + count]
            at += count
    array.flush()
    part.rename(path)


def forget(path: Path) -> None:
    """Remove what the processes wrote, once all of it is joined."""
    for kind in ("notes", "numbers"):
        for file in path.parent.glob(f"{path.name}.{kind}-*"):
            file.unlink()


def _numbers_of(notes: Path) -> Path:
    return notes.with_name(notes.name.replace(".notes-", ".numbers-"))


def _read(notes: Path) -> list[tuple[int, int, int]]:
    """Item, place in the array and count of numbers, in the order in which the numbers were written."""
    return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in whole_lines(notes).splitlines())]
