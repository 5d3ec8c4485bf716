"""Raw rows, streamed, with the place each came from: JSON lines, JSON, parquet, or a data set by name."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from mpo.data.problems import Reason, RowError
from mpo.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
Found = tuple[str, Mapping[str, Any] | RowError]


def read_rows(
    path_or_name: str, split: str, revision: str | None, columns: frozenset[str] = frozenset()
) -> Iterator[Found]:
    """Yield ``(where, row)``, or ``(where, RowError)`` for a row that isn't readable.

    ``columns``: those of a table that are read, the others are null in every row. Lines and rows count from 1. Raises
    ``DataError`` for a file that is missing, empty, not readable, of an unknown kind or broken as a whole, and for a
    data set or a split that doesn't exist.
    """
    path = Path(path_or_name)
    if path.is_file():
        try:
            yield from _file_rows(path, columns)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", str(path), "check the file") from None
    elif (path.is_dir() and path_or_name.strip("/")) or _may_be_a_name(path_or_name):
        yield from _hub_rows(path_or_name, split, revision, columns)
    elif path.exists():
        raise DataError("a pipe or device, not a file", path_or_name, "write what it gives to a file, and name that")
    else:
        raise DataError("no such file", path_or_name or "''", "check the path")


def _may_be_a_name(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", text)) and not text.endswith(SUFFIXES)


def _file_rows(path: Path, columns: frozenset[str]) -> Iterator[Found]:
    if not path.name.endswith(SUFFIXES):
        raise DataError(
            f"files of type '{path.suffix}' are not read", str(path), f"convert it to {', '.join(SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise DataError("the file is empty", str(path), "give a file with at least one row")
    if path.suffix == ".parquet":
        # Half a second to import, for one kind of file.
        from mpo.data.sources.tables import parquet_rows

        rows: Iterator[Found] = parquet_rows(path, columns)
    else:
        rows = _json_rows(path)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DataError("the file has no rows", str(path), "give a file with at least one row")


def _json_rows(path: Path) -> Iterator[Found]:
    with cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as stream:
        first = _first_character(stream, path)
        # Many .json files hold one object a line; only a leading bracket makes one a single document.
        if path.name.endswith((".json", ".json.gz")) and first == b"[":
            yield from _array_rows(stream, path)
        else:
            yield from _line_rows(stream, path)


def _first_character(stream: IO[bytes], path: Path) -> bytes:
    head = next((line for line in _lines(stream, path) if line.strip()), b"")
    stream.seek(0)
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _lines(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """Lines at newlines only, so that their numbers are those that editors show."""
    number = 0
    try:
        for line in stream:
            number += 1
            yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"the gzip data is broken: {error}", f"{path}:{number + 1}", "copy the file again") from None


def _line_rows(stream: IO[bytes], path: Path) -> Iterator[Found]:
    for number, line in enumerate(_lines(stream, path), start=1):
        if line.strip():
            yield f"{path}:{number}", _parse_line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _parse_line(line: bytes) -> Mapping[str, Any] | RowError:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return RowError(Reason.NOT_UNICODE, f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        return RowError(Reason.BROKEN_JSON, f"{error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:  # too deep, or an integer of thousands of digits
        return RowError(Reason.BROKEN_JSON, str(error))
    return _as_object(value)


def _as_object(value: object) -> Mapping[str, Any] | RowError:
    if isinstance(value, dict):
        return value
    return RowError(Reason.NOT_AN_OBJECT, f"{type(value).__name__}, not an object with fields")


def _array_rows(stream: IO[bytes], path: Path) -> Iterator[Found]:
    try:
        values = json.loads(b"".join(_lines(stream, path)).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", str(path), "save it as UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise DataError(f"broken JSON: {error.msg} at column {error.colno}", where, "fix it, or use .jsonl") from None
    except (RecursionError, ValueError) as error:  # too deep, or an integer of thousands of digits
        raise DataError(f"broken JSON: {error}", str(path), "fix it, or use .jsonl") from None
    for number, value in enumerate(values, start=1):
        yield f"{path}:row {number}", _as_object(value)


def _hub_rows(name: str, split: str, revision: str | None, columns: frozenset[str]) -> Iterator[Found]:
    # Half a second to import, and most sources are files.
    import datasets

    from mpo.data.sources.tables import dataset_rows

    try:
        data = datasets.load_dataset(name, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "check the name, the split, the revision and the network, or give the path of a local file"
        raise DataError(f"cannot load split '{split}': {detail}", name, remedy) from None
    if len(data) == 0:
        raise DataError(f"split '{split}' has no rows", name, "choose another split")
    yield from dataset_rows(data, f"{name}[{split}]", columns)
