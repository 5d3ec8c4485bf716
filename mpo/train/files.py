"""Tensors and plain values in torch's files: a checksum when one is written, and no code run when one is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mpo.cache.checksums import HashedFile


class TensorsCopy:
    """What a file of ``value`` holds, in host memory: nothing that happens to its tensors later changes it."""

    def __init__(self, value: object) -> None:
        self._parts: list[bytes] = []
        torch.save(value, self)  # type: ignore[arg-type]  # it writes and flushes, and needs nothing else

    def write(self, data: bytes) -> int:
        """Append ``data``; torch calls it."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing; torch calls it."""

    def save(self, path: Path) -> str:
        """Write the file, giving the memory back on the way; returns its checksum."""
        self._parts.reverse()
        with new_file(path) as file:
            while self._parts:
                file.write(self._parts.pop())
        return file.checksum


def save_tensors(value: object, path: Path) -> str:
    """Write ``value``; returns the file's checksum."""
    with new_file(path) as file:
        torch.save(value, file)  # type: ignore[arg-type]  # as above
    return file.checksum


@contextmanager
def new_file(path: Path) -> Iterator[HashedFile]:
    """A new file, its folder made where it is missing; on the disk, not just on its way there, when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with HashedFile(path) as file:
        yield file
        file.sync()


def load_tensors(path: Path, classes: Sequence[type] = (), device: Any = "cpu") -> Any:
    """The value of which ``path`` is the file.

    Args:
        classes: those that the file may hold beside tensors, containers, numbers and strings.

    Raises:
        pickle.UnpicklingError: it holds others, which were not made.
    """
    with torch.serialization.safe_globals(list(classes)):
        return torch.load(path, map_location=device, weights_only=True)
