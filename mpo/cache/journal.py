"""Results kept as they come, so that a stopped stage goes on after the last of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mpo.cache.artifacts import whole_lines, write_text
from mpo.cache.checksums import Damaged, sealed, unsealed


class Journal:
    """JSON values by number in a file, a line each, on the disk when :meth:`add` returns.

    What a kill has cut off or damage has changed is left out, and counted.

    Args:
        path: the file; made where it is missing.

    Attributes:
        kept: what an earlier attempt has left, by its number.
        damaged: lines that are not as they were written.
    """

    def __init__(self, path: Path) -> None:
        self.kept: dict[int, Any] = {}
        self.damaged = 0
        whole = []
        for line in whole_lines(path).splitlines(keepends=True):
            try:
                row = unsealed(line, path.name)
            except Damaged:
                self.damaged += 1
                continue
            whole.append(line)
            self.kept[row["number"]] = row["value"]
        if self.damaged:
            write_text(path, b"".join(whole).decode())
        self._file = path.open("ab")
        self._file.truncate(sum(map(len, whole)))

    def add(self, number: int, value: Any) -> None:
        """Write ``value``, to the disk itself."""
        self._file.write(json.dumps(sealed({"number": number, "value": value})).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
