"""Surroundings that fail: a small disk of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many KiB; skips where this user may not."""
    mounted: list[Path] = []

    def make(kibibytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("this user may not mount a file system")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk of ``folder`` is full."""
    file = folder / "fill"
    with file.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)) > 0:
                pass
        except OSError:
            return file
    raise AssertionError("it never filled up")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several test processes, a file's tests are one process's, for their fixtures' sake; and those that start
    groups of processes are all the same one's, because two groups on few cores take several times as long."""
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(folder if folder == "distributed" else str(item.path)))
