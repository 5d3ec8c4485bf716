"""Results kept as they come, so that a stopped stage goes on after the last of them."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mpo.cache.artifacts import whole_lines, write_text
from mpo.cache.checksums import Damaged, sealed, unsealed


def journal_files(folder: Path, name: str) -> list[Path]:
    """Those of every process that has written to this journal."""
    return sorted(folder.glob(f"{glob.escape(name)}.*.jsonl"))


def remove_journal(folder: Path, name: str) -> None:
    """Remove them."""
    for path in journal_files(folder, name):
        path.unlink()


class Journal:
    """JSON values by number, or by a digest of what they are of, in the files of a folder, a line each.

    Each is on the disk when :meth:`add` returns.

    Several processes may write at once, each to a file of its own. What a kill has cut off or damage has changed is
    left out, and counted.

    Args:
        folder: where the files lie.
        name: what theirs begin with.
        writer: number of this process or another name, by which it writes the file ``NAME.WRITER.jsonl``.

    Attributes:
        kept: what earlier attempts have left, by its number.
        damaged: lines that are not as they were written.
    """

    def __init__(self, folder: Path, name: str, writer: int | str = 0) -> None:
        self.kept: dict[Any, Any] = {}
        self.damaged = 0
        own = folder / f"{name}.{writer}.jsonl"
        whole = self._read(own)
        if self.damaged:
            write_text(own, b"".join(whole).decode())
        self._file = own.open("ab")
        self._file.truncate(sum(map(len, whole)))
        for path in journal_files(folder, name):
            if path != own:
                self._read(path)

    def _read(self, path: Path) -> list[bytes]:
        """Take what the file holds; returns the lines that are as they were written."""
        whole = []
        for line in whole_lines(path).splitlines(keepends=True):
            try:
                row = unsealed(line, path.name)
            except Damaged:
                self.damaged += 1
                continue
            whole.append(line)
            self.kept[row["number"]] = row["value"]
        return whole

    def add(self, number: int | str, value: Any) -> None:
        """Write ``value``, to the disk itself."""
        self._file.write(json.dumps(sealed({"number": number, "value": value})).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
