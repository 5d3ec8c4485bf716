"""Locks between runs: who may take them, and what is said where nobody can. Waiting is tested with the store's."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from mpo.cache.locks import is_locked, locked
from mpo.errors import ConfigError


def test_a_lock_is_held_until_its_end(tmp_path: Path) -> None:
    path = tmp_path / "stage.lock"
    assert not is_locked(path) and not path.exists()
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_disk_that_does_not_lock_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpo.cache.locks.fcntl.flock", refuse(errno.ENOLCK))
    with (
        pytest.raises(ConfigError, match="cache_dir: its file system does not lock files"),
        locked(tmp_path / "a.lock"),
    ):
        pass


def test_a_lock_of_another_user_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    as_reader(monkeypatch)
    with locked(path):  # as a local disk allows
        assert is_locked(path)
    monkeypatch.setattr("mpo.cache.locks.fcntl.flock", refuse(errno.EBADF))  # as NFS answers
    with pytest.raises(ConfigError, match=f"cache_dir: this user may not write to '{path}'"), locked(path):
        pass


@pytest.mark.parametrize(("folder", "file"), [(0o777, 0o666), (0o775, 0o664), (0o755, 0o644)])
def test_whoever_may_build_beside_a_lock_may_lock_it(tmp_path: Path, folder: int, file: int) -> None:
    tmp_path.chmod(folder)
    before = os.umask(0o077)
    try:
        with locked(tmp_path / "a.lock"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.lock").stat().st_mode) == file


def refuse(code: int) -> object:
    def flock(handle: object, how: int) -> None:
        raise OSError(code, os.strerror(code))

    return flock


def as_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be opened for writing by mpo.cache.locks, whoever runs the test."""

    def opened(path: Path, mode: str = "r") -> object:
        if mode != "r":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return path.open()

    monkeypatch.setattr("mpo.cache.locks.open", opened, raising=False)
