"""Locks between runs that share a folder, by files that hold nothing. The kernel drops them when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mpo.errors import ConfigError


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the file ``path``, which is made if it is missing; waits until nobody else holds it.

    Raises:
        ConfigError: the file system does not lock files, or another user's lock file may only be read.
    """
    with _opened(path) as file:
        _lock(file, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of the file ``path``, which may be missing; raises as :func:`locked` does."""
    if not path.exists():
        return False
    try:
        with _opened(path) as file:
            _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _opened(path: Path) -> TextIO:
    """The lock's file, for writing, as NFS wants it for an exclusive lock; another user's may only be there to read."""
    try:
        file = open(path, "a")  # noqa: SIM115  # the caller closes it
    except PermissionError:
        return open(path)
    # Whoever may make files beside it may write to it: with a stricter umask others could not lock it over NFS.
    mode, wanted = os.fstat(file.fileno()).st_mode, os.stat(path.parent).st_mode & 0o666
    if wanted & ~mode:
        with contextlib.suppress(PermissionError):  # another user's
            os.fchmod(file.fileno(), mode | wanted)
    return file


def _lock(file: TextIO, how: int) -> None:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        raise
    except OSError as error:
        if not file.writable():
            what = f"this user may not write to '{file.name}', as a lock on its file system needs"
            raise ConfigError(what, "cache_dir", "let its owner change its permissions (chmod a+w)") from error
        what = f"its file system does not lock files ({error.strerror})"
        raise ConfigError(what, "cache_dir", "name a folder elsewhere, or mount it with locks") from error
