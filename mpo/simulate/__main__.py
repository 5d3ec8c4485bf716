"""``python -m mpo.simulate NAME --out DIR``: a theorem or figure of the MPO paper, simulated. Imports no torch."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import scipy

from mpo.cache.artifacts import write_json, write_text
from mpo.commands import exit_status
from mpo.plain import finite, to_plain
from mpo.simulate import spacing, theorem1, theorem2
from mpo.track.provenance import commit, versions
from mpo.track.units import duration

SCHEMA = 1
"""Version of the JSON object's fields."""
SIMULATIONS: dict[str, ModuleType] = {"theorem1": theorem1, "theorem2": theorem2, "spacing": spacing}


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and write; 0, or 2 for what a user can fix, such as a folder that cannot be written."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mpo.simulate",
        description="Simulate a theorem or figure of the MPO paper; writes NAME.json, NAME.png and NAME.md.",
        epilog="exit status: 0 done, 2 for a folder that cannot be written",
    )
    parser.add_argument("name", choices=SIMULATIONS, help="rate of convergence, order under noise, figure 10")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--seed", type=_seed, default=0, help="of all random numbers (default 0)")
    parser.add_argument("--json", action="store_true", help="print the JSON object, too")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a whole number from 0 on: {text!r}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    name, out = options.name, options.out
    simulation = SIMULATIONS[name]
    out.mkdir(parents=True, exist_ok=True)  # before the work: a folder that cannot be made fails fast
    began = time.monotonic()
    print(f"{name}: simulating with seed {options.seed}, some seconds", file=sys.stderr, flush=True)
    rows = simulation.simulate(options.seed, progress=_Printer(name))
    found = _as_object(name, options.seed, simulation, rows)
    write_json(out / f"{name}.json", found)
    write_text(out / f"{name}.md", simulation.markdown(rows))
    simulation.figure(rows, out / f"{name}.png")
    if options.json:
        print(json.dumps(found, allow_nan=False))
    else:
        print("\n".join(found["findings"]))
    written = ", ".join(str(out / f"{name}.{kind}") for kind in ("json", "md", "png"))
    print(f"{name}: wrote {written} in {duration(time.monotonic() - began)}", file=sys.stderr)
    return 0


class _Printer:
    """A line of progress every two seconds."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= 2:
            self._last = time.monotonic()
            print(f"{self._name}: {done} of {total} parts done", file=sys.stderr, flush=True)


def _as_object(name: str, seed: int, simulation: ModuleType, rows: Sequence[Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "simulation": name,
        "seed": seed,
        "versions": {**versions(), "scipy": scipy.__version__},
        "commit": commit(),
        "findings": simulation.findings(rows),
        "rows": finite(to_plain(list(rows))),
    }


if __name__ == "__main__":
    sys.exit(main())
