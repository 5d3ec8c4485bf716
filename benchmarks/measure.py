"""How a side is measured: in a process of its own, by its seconds per step and the memory that it held."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpo.pipeline.launch import OPENMP
from mpo.track import provenance

MARK = "measured: "


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """Most bytes resident while the block ran, looked at every few milliseconds."""

    peak = 0

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator[PeakMemory]:
        """Watch the block."""
        found, stop = cls(), threading.Event()

        def look() -> None:
            while not stop.wait(0.005):
                found.peak = max(found.peak, resident())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join()


def tell(values: dict[str, Any]) -> None:
    """Print a side's measurement for the process that started it."""
    print(MARK + json.dumps(values), flush=True)


def flags(arguments: argparse.Namespace) -> list[str]:
    """The command line of ``arguments`` again, without how a side is told from the whole, for :func:`run_side`."""
    told = {name.replace("_", "-"): value for name, value in vars(arguments).items() if name not in ("json", "side")}
    values = [f"--{name}={value}" for name, value in told.items() if not isinstance(value, bool)]
    return values + [f"--{name}" for name, value in told.items() if value is True]


def run_side(module: str, arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """Run ``python -m module arguments`` and return what it told.

    Raises:
        RuntimeError: with the end of its output, where it told nothing.
    """
    environment = os.environ | OPENMP | {"OMP_NUM_THREADS": str(threads), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))  # type: ignore[no-any-return]
    raise RuntimeError(f"{module} {' '.join(arguments)} told nothing:\n{(done.stdout + done.stderr)[-3000:]}")


def report(name: str, arguments: argparse.Namespace, rows: list[dict[str, Any]], packages: Sequence[str] = ()) -> None:
    """Print the measurement as JSON, with what it was taken on."""
    from importlib.metadata import version

    facts = {
        "benchmark": name,
        "arguments": {key: value for key, value in vars(arguments).items() if key not in ("json", "side")},
        "rows": rows,
        "versions": provenance.versions() | {package: version(package) for package in packages},
        "commit": provenance.commit(),
        "hardware": provenance.hardware(),
    }
    print(json.dumps(facts, indent=1))
