"""Checksums that notice damage, of files and of JSON records. No torch.

XXH3 with 128 bits, which is about as fast as memory. They are made when something is written and show what a disk, a
copy or an editor did to it since. They protect against no person: so nothing read from a cache may run code either way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import xxhash

FIELD = "checksum"
"""Of a sealed record: the checksum of all its other fields."""
BLOCK = 4 * 2**20
"""Bytes read at once."""
SMALL = 64 * 2**20
"""Bytes up to which a file is always read when it is checked; of a larger one size and time of change may be enough."""

Listing = Mapping[str, tuple[int, str]]
"""Size and checksum of every file of a folder, by its path there."""


class Damaged(Exception):
    """A file is not what was written; the message says which and how."""


def file_checksum(path: Path) -> str:
    """Checksum of a file's content, 32 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


class HashedFile:
    """A new binary file whose checksum is made of what is written, not of what a disk says was written."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115  # it is closed with this object
        self._digest = xxhash.xxh3_128()

    def write(self, data: bytes) -> int:
        """Append ``data``."""
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def checksum(self) -> str:
        """Of everything written so far; what :func:`file_checksum` says of an undamaged file."""
        return self._digest.hexdigest()

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def check_file(path: Path, expected: str) -> None:
    """Compare a file with its checksum.

    Raises:
        Damaged: it is missing, cannot be read, or has other content.
        PermissionError: it may not be read.
    """
    try:
        found = file_checksum(path)
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    except PermissionError:
        raise
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from error
    if found != expected:
        raise Damaged(f"{path.name} does not have its checksum")


class Folders:
    """Checks folders by the listings made when they were written; what was found whole is not read again.

    Args:
        memos: folder that remembers, for other processes, large files by path, size and time of change.
        write: replaces a small file atomically.
    """

    def __init__(self, memos: Path, write: Callable[[Path, str], None]) -> None:
        self._memos, self._write = memos, write
        self._read: set[Path] = set()

    def listing(self, folder: Path, leave_out: Callable[[Path], bool]) -> dict[str, tuple[int, str]]:
        """The listing of a folder that is as it should be."""
        names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        return {
            str(name): ((folder / name).stat().st_size, file_checksum(folder / name))
            for name in names
            if not leave_out(name)
        }

    def remember(self, folder: Path, listing: Listing) -> None:
        """Take ``folder`` for whole: its listing was made a moment ago."""
        for name, (size, checksum) in listing.items():
            self._remember(folder / name, size, checksum)

    def check(self, folder: Path, listing: Listing, thorough: bool) -> None:
        """Compare a folder with its listing.

        Args:
            thorough: read large files too; else those are taken for whole that have not changed since they were read.

        Raises:
            Damaged: names the first file that is not as it was written.
            PermissionError: a file may not be read.
        """
        for name, (size, checksum) in listing.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise Damaged(f"{name} is {'of another size' if path.is_file() else 'missing'}")
            if path in self._read or (size > SMALL and not thorough and self._known(path, checksum)):
                continue
            try:
                check_file(path, checksum)
            except Damaged as damage:
                self._memo(path).unlink(missing_ok=True)
                raise Damaged(str(damage).replace(path.name, name, 1)) from None
            self._remember(path, size, checksum)

    def forget(self, folder: Path) -> None:
        """Whatever is put there next has to be read again."""
        self._read = {path for path in self._read if folder not in path.parents}

    def _remember(self, path: Path, size: int, checksum: str) -> None:
        self._read.add(path)
        if size > SMALL and not self._known(path, checksum):
            self._write(self._memo(path), checksum)

    def _known(self, path: Path, checksum: str) -> bool:
        memo = self._memo(path)
        return memo.is_file() and memo.read_bytes() == checksum.encode()

    def _memo(self, path: Path) -> Path:
        stat = path.stat()
        mark = f"{os.path.realpath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
        return self._memos / f"{xxhash.xxh3_128_hexdigest(mark.encode())}.xxh3"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record, as JSON holds it, with a checksum of itself."""
    plain = json.loads(json.dumps(record))
    return {**plain, FIELD: _of_record(plain)}


def read_sealed(path: Path) -> dict[str, Any]:
    """A JSON record that :func:`sealed` made, from its file.

    Raises:
        Damaged: it is missing, not JSON, or not what was written.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    return unsealed(content, path.name)


def unsealed(content: bytes, name: str) -> dict[str, Any]:
    """A JSON record that :func:`sealed` made, without its checksum.

    Raises:
        Damaged: it is not JSON, or not what was written; says so of ``name``.
    """
    try:
        record = json.loads(content)
    except ValueError:  # also of text that is not UTF-8
        raise Damaged(f"{name} is not JSON") from None
    if not isinstance(record, dict) or FIELD not in record:
        raise Damaged(f"{name} has no checksum: damaged, or of an older version")
    found = record.pop(FIELD)
    if found != _of_record(record):
        raise Damaged(f"{name} does not have its checksum")
    return record


def _of_record(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())
