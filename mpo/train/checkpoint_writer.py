"""Folders that several processes write together, each in a thread of its own: complete or absent.

The threads meet in the folder alone, which may be on a network's disk: each process writes its files under a temporary
name, then a record of their checksums; once all records are there, the first process gives the folder its name. No
thread takes part in a collective: those belong to the training that goes on meanwhile.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from mpo.cache.checksums import Damaged, read_sealed, sealed
from mpo.train.files import TensorsCopy, new_file, save_tensors

STATE = "state.json"
UNFINISHED = "tmp-"
POLL_S = 0.02


@dataclass
class Folder:
    """What a process adds to a folder.

    Attributes:
        path: of the complete folder.
        record: what its ``state.json`` says beside the files' checksums; the first process's counts.
        copies: tensors are copied now and written later; else written at once.
        files: what writes each file, by name, and returns its checksum.
    """

    path: Path
    record: Mapping[str, Any]
    copies: bool = True
    files: dict[str, Callable[[], str]] = field(default_factory=dict)

    @property
    def unfinished(self) -> Path:
        """Its name until it is complete."""
        return self.path.with_name(f"{UNFINISHED}{self.path.name}")

    def add(self, value: object, name: str) -> None:
        """A file of tensors and plain values, which may change as soon as this returns."""
        path = self.unfinished / name
        self.files[name] = (
            partial(TensorsCopy(value).save, path) if self.copies else partial(str, save_tensors(value, path))
        )

    def add_beginning(self, source: Path, size: int) -> None:
        """A copy of the first ``size`` bytes of a file that nothing but appending changes."""

        def copy() -> str:
            with source.open("rb") as file:
                return _write(self.unfinished / source.name, file.read(size))

        self.files[source.name] = copy

    def write(self, rank: int) -> None:
        """Write this process's files, then the record of their checksums."""
        checksums = {name: write() for name, write in self.files.items()}
        _write(self._written(rank), json.dumps(sealed({"files": checksums})).encode())

    def complete(self, world_size: int) -> None:
        """Wait until ``world_size`` processes have written their files, and give the folder its name."""
        checksums: dict[str, str] = {}
        for rank in range(world_size):
            checksums |= _awaited(self._written(rank))["files"]
        _write(self.unfinished / STATE, json.dumps(sealed({**self.record, "files": checksums})).encode())
        for rank in range(world_size):
            self._written(rank).unlink()
        self.unfinished.rename(self.path)

    def _written(self, rank: int) -> Path:
        return self.unfinished / f"written-{rank}.json"


class Writer:
    """Writes folders one after the other in a thread of its own, which a process that ends does not wait for."""

    def __init__(self) -> None:
        self._writing: Future[None] | None = None

    def start(self, folders: Sequence[Folder], rank: int, world_size: int, then: Callable[[], None]) -> None:
        """Begin to write; in the first process ``then`` follows once all folders are complete."""
        assert self._writing is None
        future = self._writing = Future[None]()

        def work() -> None:
            try:
                for folder in folders:
                    folder.write(rank)
                if rank == 0:
                    for folder in folders:
                        folder.complete(world_size)
                    then()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

        Thread(target=work, daemon=True).start()

    @property
    def idle(self) -> bool:
        """Whether nothing is being written; in the first process, by no process."""
        return self._writing is None or self._writing.done()

    def check(self) -> None:
        """Raise OSError if something could not be written."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Until all is written and, in the first process, complete; raises OSError if it could not be written."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def remove(folder: Path) -> None:
    """Remove a complete folder, which is no longer one from the first moment on."""
    unfinished = folder.with_name(f"{UNFINISHED}{folder.name}")
    folder.rename(unfinished)
    shutil.rmtree(unfinished)


def remove_unfinished(parent: Path) -> None:
    """Remove what processes that were killed have left."""
    for unfinished in parent.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _awaited(written: Path) -> dict[str, Any]:
    while True:
        try:
            return read_sealed(written)
        except Damaged:  # its process has not written it yet; if it cannot, its error ends the whole group
            time.sleep(POLL_S)


def _write(path: Path, content: bytes) -> str:
    with new_file(path) as file:
        file.write(content)
    return file.checksum
