"""Surroundings that fail: a small disk of its own; which tests run in one process."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
# How long an example takes says how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


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


class _InGroups(LoadScopeScheduling):
    """Which tests one process runs: those of a file, for their fixtures' sake; all that share the first run; and all
    that start groups of processes, for two of them on few cores take several times as long."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        if folder == "tests/end_to_end":
            return f"{folder}, {'with' if _shares_first_run(file) else 'without'} the first run"
        return folder if folder == "tests/distributed" else file


@functools.cache
def _shares_first_run(file: str) -> bool:
    return "first_run" in (ROOT / file).read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """See pytest-xdist; the groups that take longest come first."""
    config.option.loadscopereorder = False
    return _InGroups(config, log)
