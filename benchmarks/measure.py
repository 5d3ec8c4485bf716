"""How a side is measured: in a process of its own, by its seconds per step and the memory that it held.

On a CUDA card seconds are taken once the card has done what it was asked to do, and memory is the card's. None of that
has been run on a card yet.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpo.pipeline.launch import OPENMP
from mpo.pipeline.stage_process import ALLOCATOR, ALLOCATORS
from mpo.track import provenance

MARK = "measured: "
DRIVER = Path("/proc/driver/nvidia/version")
CALL_ONLY = ("json", "side")
"""Arguments that say how a benchmark is run, not what it measures."""


def on_card() -> bool:
    """Whether a CUDA card is measured, not this CPU."""
    import torch

    return torch.cuda.is_available()


def now() -> float:
    """Seconds on a clock, once the card has done what it was asked to do."""
    if on_card():
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def held() -> int:
    """Bytes held now: of tensors on the card, else of this process in memory."""
    if on_card():
        import torch

        return torch.cuda.memory_allocated()
    return _resident()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """Most bytes that were held while a block ran, as :func:`held` counts them; on a CPU looked at every few
    milliseconds.

    Attributes:
        reserved: most that PyTorch's allocator has taken of the card; None without one.
    """

    peak = 0
    reserved: int | None = None

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator[PeakMemory]:
        """Watch the block."""
        found = cls()
        with found._on_card() if on_card() else found._on_cpu():
            yield found

    @contextmanager
    def _on_card(self) -> Iterator[None]:
        import torch

        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        yield
        torch.cuda.synchronize()
        self.peak, self.reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    @contextmanager
    def _on_cpu(self) -> Iterator[None]:
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.005):
                self.peak = max(self.peak, _resident())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def device() -> dict[str, Any]:
    """What this process computes on: the card's name, memory, driver and CUDA, or that it is the CPU."""
    import torch

    if not on_card():
        return {"kind": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "kind": "cuda",
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return DRIVER.read_text().splitlines()[0] if DRIVER.is_file() else "unknown"


def tell(values: dict[str, Any]) -> None:
    """Print a side's measurement, and what it was taken on, for the process that started it."""
    print(MARK + json.dumps({"device": device(), **values}), flush=True)


def flags(arguments: argparse.Namespace, **others: Any) -> list[str]:
    """The command line of ``arguments`` again, without what only the whole is called with, for :func:`run_side`.

    Args:
        others: values in place of those of ``arguments``.
    """
    given = {name: value for name, value in vars(arguments).items() if name not in CALL_ONLY} | others
    values = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if not isinstance(value, bool)]
    return values + [f"--{name.replace('_', '-')}" for name, value in given.items() if value is True]


def run_side(module: str, arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """Run ``python -m module arguments`` and return what it measured.

    Raises:
        RuntimeError: with the end of its output, where it measured nothing.
    """
    environment = os.environ | OPENMP | {"OMP_NUM_THREADS": str(threads), "WANDB_MODE": "disabled"}
    if not any(name in os.environ for name in ALLOCATORS):
        environment[ALLOCATOR] = "expandable_segments:True"  # as in trainings; for whatever is compared, too
    environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # one card
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))  # type: ignore[no-any-return]
    raise RuntimeError(f"{module} {' '.join(arguments)} measured nothing:\n{(done.stdout + done.stderr)[-3000:]}")


def report(name: str, arguments: argparse.Namespace, rows: list[dict[str, Any]], packages: Sequence[str] = ()) -> None:
    """Print the measurement as JSON, with what it was taken on."""
    from importlib.metadata import version

    found = next((row["device"] for row in rows if "device" in row), None)
    facts = {
        "benchmark": name,
        "arguments": {key: value for key, value in vars(arguments).items() if key not in CALL_ONLY},
        "rows": [{key: value for key, value in row.items() if key != "device"} for row in rows],
        "versions": provenance.versions() | {package: version(package) for package in packages},
        "commit": provenance.commit(),
        "hardware": provenance.hardware(),
        "device": found,
    }
    print(json.dumps(facts, indent=1))
