"""What a result row records beside its numbers: versions, commit, hardware, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import mpo
from mpo.cache.package_versions import library_versions


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    return {"python": platform.python_version(), "mpo": mpo.__version__, **library_versions()}


def commit() -> str:
    """The checkout's commit, with ``+changes`` where files differ from it; empty for an installed package."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder.parent / ".git").exists():
        return ""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def hardware() -> str:
    """Processor, cores that this process may use, memory; the accelerator is recorded by the stage that used it."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def command(overrides: Sequence[str]) -> str:
    """The command line of one run, be it alone or a member of a multirun."""
    return " ".join(["python", "-m", "mpo.run", *map(shlex.quote, overrides)])


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return run.stdout.strip()
