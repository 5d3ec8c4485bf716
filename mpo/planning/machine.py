"""How fast this machine multiplies matrices and passes over memory, measured once for each shape, then cached; how much
memory it has."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from mpo.cache.artifacts import canonical_json, read_json, write_json
from mpo.config.training import Precision
from mpo.track import provenance

ROWS = {"cpu": 1024, "cuda": 8192}
WIDEST = {"cpu": 2048, "cuda": 8192}
"""Largest side of the matrix that is measured, by type of device; larger ones run at the same rate."""
SECONDS = 0.1
"""Time given to each measurement; its fastest repetition counts."""
GIB = 2**30
SMALLEST_CARD = """
import torch
print(min(torch.cuda.get_device_properties(each).total_memory for each in range(torch.cuda.device_count())))
"""


@dataclass(frozen=True)
class Machine:
    """Rates of one process's device: products of matrices, and bytes that elementwise operations read and write."""

    name: str
    flops_per_second: float
    bytes_per_second: float


def this_machine(cache: Path, hidden: int, intermediate: int, precision: Precision, threads: int) -> Machine | None:
    """The rates for matrices of a model's shape, measured now unless ``cache`` has them; None where they cannot be.

    On CUDA the measurement runs in a process of its own: this one must leave the card to the stages.
    """
    import torch

    cuda = torch.cuda.is_available()
    widest = WIDEST["cuda" if cuda else "cpu"]
    sides = min(hidden, widest), min(intermediate, widest)
    key = {"hardware": provenance.hardware(), "cuda": cuda, "sides": sides, "precision": precision.name,
           "threads": None if cuda else threads, "torch": torch.__version__}  # fmt: skip
    digest = hashlib.sha256(canonical_json(key).encode()).hexdigest()[:20]
    path = cache / "machine" / f"{digest}.json"
    if not path.exists():
        if cuda:
            arguments = [str(path), *map(str, sides), precision.name, str(threads)]
            command = [sys.executable, "-m", "mpo.planning.machine", *arguments]
            try:
                subprocess.run(command, check=True, timeout=120, capture_output=True)
            except subprocess.SubprocessError:  # a full card, or one that another process has for itself
                return None
        else:
            write_json(path, asdict(measure(*sides, precision, threads)))
    return Machine(**read_json(path))


def card_memory() -> int | None:
    """Bytes of the smallest card that this process may use, in whole GiB, which a driver's update leaves alone; None
    where they cannot be read. Asked once, in a process of its own: this one must leave the card to the stages."""
    return _card_memory(SMALLEST_CARD)


@cache
def _card_memory(script: str) -> int | None:
    command = [sys.executable, "-c", script]
    try:
        found = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout
    except subprocess.SubprocessError:
        return None
    return int(found) // GIB * GIB


def host_memory(root: Path = Path("/")) -> int:
    """Bytes of this machine's memory, or of the control group's where that has fewer, in whole GiB.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):  # of version 2, or 1
            top = root / "sys/fs/cgroup" / controllers
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            group = top / path.strip("/")
            found += [limit for each in (group, *group.parents) if each.is_relative_to(top)
                      for limit in _limit(each / name)]  # fmt: skip
    return max(min(found) // GIB, 1) * GIB


def _limit(file: Path) -> list[int]:
    """The number in a control group's file; none where it is not there, or there is no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() else []


def measure(hidden: int, intermediate: int, precision: Precision, threads: int) -> Machine:
    """The rates, measured now in this process."""
    import torch

    before = torch.get_num_threads()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    try:
        dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
        rows = ROWS[device.type]
        x = torch.randn(rows, hidden, device=device).to(dtype)
        weight = torch.randn(intermediate, hidden, device=device).to(dtype)
        y = x @ weight.t()

        def product() -> None:
            torch.nn.functional.linear(x, weight)

        def elementwise() -> None:
            torch.nn.functional.silu(y) * y

        wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
        flops = 2.0 * rows * hidden * intermediate / _fastest(product, wait)
        moved = 5.0 * y.numel() * y.element_size() / _fastest(elementwise, wait)
    finally:
        torch.set_num_threads(before)
    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"this CPU ({threads} thread{'s' if threads > 1 else ''})"
    )
    return Machine(name, flops, moved)


def _fastest(action: Callable[[], None], wait: Callable[[], None]) -> float:
    """Seconds of the fastest repetition."""
    action()  # the first one also chooses kernels and takes memory
    wait()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < end:
        began = time.perf_counter()
        action()
        wait()
        best = min(best, time.perf_counter() - began)
    return best


if __name__ == "__main__":
    target, *of, wanted, cores = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = cores
    write_json(Path(target), asdict(measure(int(of[0]), int(of[1]), Precision[wanted], int(cores))))
