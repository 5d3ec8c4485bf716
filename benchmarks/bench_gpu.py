"""All that a CUDA card can answer, in one command: useful arithmetic, a step beside TRL's, large sets, layouts.

    make bench-gpu [ARGS='--minutes 8 --out FOLDER']
    make bench-gpu ARGS='--device cpu --small'      # the same code on a tiny model: figures mean nothing

Each part is a benchmark of this folder in a process of its own; one that fails, or for which no time is left, is named
and the others go on. ``bench.json`` has every figure with versions, card, driver, commands and commit, ``bench.md`` a
table for docs/performance.md, which is printed too. Without a card it ends with one line and exit status 2. Not yet run
on a card.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_table import table
from mpo.errors import EXIT_CODE
from mpo.track import provenance

JSON_FILE, TABLE_FILE = "bench.json", "bench.md"
LEAST_S = 20
"""Seconds that have to be left for a part to be started."""
COMMON = "--precision bf16 --lengths ultrafeedback --warm-up 3 --micro-batch 64"
TINY = "--model tiny --prompt 20 --length 30"
"""In place of what a part says of model and lengths: later values of an argument count."""


@dataclass(frozen=True)
class Part:
    """One benchmark: its name in the results, its module and arguments, and what replaces them for ``--small``; None
    leaves it out there."""

    name: str
    module: str
    arguments: str
    small: str | None

    def command(self, small: bool) -> list[str]:
        """What to run."""
        arguments = f"{self.arguments} {TINY} {self.small}" if small else self.arguments
        return [sys.executable, "-m", f"benchmarks.{self.module}", *shlex.split(arguments), "--json"]


PARTS = (
    Part("mfu_1b", "mfu", f"--model 1b --responses 4 --sets 32 --steps 6 {COMMON}", "--sets 2 --steps 1 --warm-up 1"),
    Part(
        "step_vs_trl", "step_vs_trl",
        "--model 1b --responses 4 --sets 16 --steps 4 --warm-up 3 --lengths ultrafeedback --micro-batch 64 --ours bf16 "
        "--theirs bf16 bf16-weights --pairs 4 2",
        "--sets 2 --steps 1 --warm-up 1 --theirs bf16",
    ),
    Part(
        "large_k", "large_k", "--model 1b --responses 8 128 --rounds 1 --measured 256 --warm-up 2",
        "--measured 8 --warm-up 1 --micro-tokens 512",
    ),
    Part("mfu_8b", "mfu", f"--model 8b --responses 4 --sets 32 --steps 4 {COMMON}", None),
    Part("layouts", "layouts", "--model 1b --precision bf16 --responses 8", "--responses 4 --repeats 1"),
    Part(
        "breakdown_1b", "breakdown",
        "--model 1b --precision bf16 --responses 4 --sets 32 --micro-batch 64 --steps 2", "--sets 2 --steps 1",
    ),
)  # fmt: skip
"""In the order in which they are run: what has a goal comes first."""


def main() -> int:
    """Run all parts, write and print what they found. The exit status is 1 where one has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the code")
    parser.add_argument("--minutes", type=float, default=8.0, help="what has not begun by then is left out")
    parser.add_argument("--out", type=Path, help="folder of the results; default: one in outputs/bench-gpu")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not _has_card():
        tried = "make bench-gpu ARGS='--device cpu --small' tries the code without one"
        print(f"bench-gpu: needs a CUDA card; {tried}", file=sys.stderr)
        return EXIT_CODE
    began = datetime.datetime.now(datetime.UTC)
    out = arguments.out or Path("outputs/bench-gpu") / f"{began:%Y-%m-%d_%H-%M-%S}"
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * arguments.minutes
    environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": ""} if arguments.device == "cpu" else {})
    found = []
    for part in (part for part in PARTS if part.small is not None or not arguments.small):
        print(f"{part.name}: ", end="", file=sys.stderr, flush=True)
        found.append({**asdict(part), **run_part(part.command(arguments.small), environment, until - time.monotonic())})
        print(f"{found[-1]['seconds']:.0f} s{_why(found[-1])}", file=sys.stderr)
    results = [part["result"] for part in found if "result" in part]
    record = {
        "benchmark": "bench_gpu",
        "created": began.isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks.bench_gpu", *sys.argv[1:]]),
        "small": arguments.small,
        "commit": provenance.commit(),
        "hardware": provenance.hardware(),
        "device": results[0]["device"] if results else None,
        "versions": {name: version for result in results for name, version in result["versions"].items()},
        "parts": found,
    }
    text = table(record)
    (out / JSON_FILE).write_text(json.dumps(record, indent=1) + "\n")
    (out / TABLE_FILE).write_text(text)
    print(text)
    print(f"{out / JSON_FILE}, {out / TABLE_FILE}", file=sys.stderr)
    return 1 if any("failed" in part for part in found) else 0


def run_part(command: Sequence[str], environment: dict[str, str], left: float) -> dict[str, Any]:
    """The command's seconds and its result; or that it was left out (``skipped``) or did not end well (``failed``).

    Args:
        left: seconds until it is ended, with all that it has started.
    """
    shown = shlex.join(["python", *command[1:]])
    if left < LEAST_S:
        return {"command": shown, "seconds": 0.0, "skipped": "no time was left"}
    began = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=left)
    except subprocess.TimeoutExpired:
        ended: dict[str, Any] = {"skipped": "no time was left to end it"}
    else:
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), f"status {process.returncode}")
        ended = {0: {}, EXIT_CODE: {"skipped": last}}.get(process.returncode, {"failed": last, "log": errors[-4000:]})
        if not ended:
            ended = {"result": json.loads(output)}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {"command": shown, "seconds": time.monotonic() - began, **ended}


def _why(part: dict[str, Any]) -> str:
    return next((f", {word}: {part[word]}" for word in ("skipped", "failed") if word in part), "")


def _has_card() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
