"""Reading metrics files: one JSON object a line, each with an integer ``step`` that grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mpo.errors import DataError

_SIGNATURE = 256
"""Bytes before the read position that tell an appended file from one that was cut and written again."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete records of a metrics file, in file order; a last line without its newline is still being written.

    Raises:
        DataError: the file is missing, or a line is not a JSON object with an integer ``step``.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError("no such metrics file", str(path), "run the training stage first") from error
    lines = data.split(b"\n")[:-1]
    return [_record(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]


class MetricsFollower:
    """Reads a growing metrics file piece by piece and never returns a step twice.

    A trainer that resumes cuts the file back to its checkpoint's step and appends again: the file is then read from its
    start, and steps already returned are left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_step: int | None = None
        self._offset = 0
        self._line = 0
        self._signature = b""

    def poll(self) -> list[dict[str, Any]]:
        """The records that were completed since the last call; empty while the file does not exist.

        Raises:
            DataError: a complete line is not a JSON object with an integer ``step``.
        """
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            self._restart()
            return []
        with stream:
            stream.seek(self._offset - len(self._signature))
            if stream.read(len(self._signature)) != self._signature:
                self._restart()
            stream.seek(self._offset)
            data = stream.read()
        complete = data[: data.rfind(b"\n") + 1]
        new = []
        for line in complete.splitlines():
            self._line += 1
            if not line.strip():
                continue
            record = _record(line, self._path, self._line)
            if self._last_step is None or record["step"] > self._last_step:
                self._last_step = record["step"]
                new.append(record)
        self._offset += len(complete)
        self._signature = (self._signature + complete)[-_SIGNATURE:]
        return new

    def _restart(self) -> None:
        self._offset, self._line, self._signature = 0, 0, b""


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    where = f"{path}:{number}"
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"not a JSON object: {error}", where, "remove the line, or train again") from error
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise DataError("no integer field 'step'", where, "remove the line, or train again")
    return record
