"""An array that several processes fill incrementally, and go on filling after they were stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from mpo.cache.artifacts import whole_lines

SAVE_S = 20.0
"""Seconds of work that a kill may cost."""


class _Note(NamedTuple):
    """That ``item``'s ``length`` numbers, which stand at ``start`` in the array, are written."""

    item: int
    start: int
    length: int
    checksum: bytes


class ResumableArray:
    """What one process adds to the float32 array ``name.npy``: numbers, and notes of the items that they belong to.

    Every process appends to files of its own, because machines that write into one file over a network may restore each
    other's old pages; :func:`join` makes the array of them.

    Args:
        path: of the array.
        rank: of this process; all of them are here before any writes.

    Every note has a checksum of itself and its numbers. What follows a damaged one is written again.

    Attributes:
        done: items that are written, whoever wrote them.
        damaged: whether some of this process's were, and are not there any more.
    """

    def __init__(self, path: Path, rank: int) -> None:
        self.done = {note.item for notes in path.parent.glob(f"{path.name}.notes-*") for note, _ in _read(notes)}
        own = path.with_name(f"{path.name}.notes-{rank}")
        kept, lines = list(_read(own)), whole_lines(own).splitlines(keepends=True)
        self.damaged = len(kept) < len(lines)
        self._notes = own.open("ab")
        self._notes.truncate(sum(map(len, lines[: len(kept)])))
        self._numbers = _numbers_of(own).open("ab")
        self._numbers.truncate(4 * sum(note.length for note, _ in kept))
        self._unnoted: list[_Note] = []
        self._saved = time.monotonic()

    def write(self, item: int, start: int, values: np.ndarray[Any, Any]) -> None:
        """Add ``item``'s numbers, which stand at ``start`` in the array."""
        values = values.astype(np.float32)
        self._numbers.write(values.tobytes())
        self._unnoted.append(_Note(item, start, len(values), _checksum(item, start, values)))
        if time.monotonic() - self._saved > SAVE_S:
            self.save()

    def save(self) -> None:
        """Note what has reached the disk."""
        self._numbers.flush()
        os.fsync(self._numbers.fileno())
        self._notes.writelines(b"%d %d %d %s\n" % note for note in self._unnoted)
        self._notes.flush()
        os.fsync(self._notes.fileno())
        self._unnoted.clear()
        self._saved = time.monotonic()

    def __enter__(self) -> ResumableArray:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()
        self._numbers.close()
        self._notes.close()


def join(path: Path, length: int) -> None:
    """Make the array of ``length`` numbers from what all processes have written."""
    part = path.with_name(f"{path.name}.part")
    array = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(length,))
    for notes in sorted(path.parent.glob(f"{path.name}.notes-*")):
        for note, values in _read(notes):
            array[note.start : note.start + note.length] = values
    array.flush()
    part.rename(path)


def forget(path: Path) -> None:
    """Remove what the processes wrote, once all of it is joined."""
    for kind in ("notes", "numbers"):
        for file in path.parent.glob(f"{path.name}.{kind}-*"):
            file.unlink()


def _numbers_of(notes: Path) -> Path:
    return notes.with_name(notes.name.replace(".notes-", ".numbers-"))


def _read(notes: Path) -> Iterator[tuple[_Note, np.ndarray[Any, Any]]]:
    """Notes with their numbers, in the order in which they were written, up to the first damaged one."""
    if not notes.exists() or not _numbers_of(notes).exists():
        return
    numbers, at = np.fromfile(_numbers_of(notes), dtype=np.float32), 0
    for line in whole_lines(notes).splitlines():
        try:
            item, start, count = map(int, line.split()[:3])
            note = _Note(item, start, count, line.split()[3])
        except (ValueError, IndexError):
            return
        values = numbers[at : at + count]
        if len(values) != count or note.checksum != _checksum(item, start, values):
            return
        at += count
        yield note, values


def _checksum(item: int, start: int, values: np.ndarray[Any, Any]) -> bytes:
    digest = xxhash.xxh3_64(b"%d %d " % (item, start))
    digest.update(values.tobytes())
    return digest.hexdigest().encode()
