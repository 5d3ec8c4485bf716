"""``python -m mpo.losses.conformance FILE...``: golden files against the losses, in float64 and float32.

Exit status 0 where all agree, 1 where one is out of tolerance, 2 where a file cannot be used.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mpo.errors import EXIT_CODE, DataError, UserError
from mpo.losses import LOSSES
from mpo.losses.golden import GoldenCase, read_golden


@dataclass(frozen=True)
class Tolerance:
    """Largest error allowed: relative for loss and for gradient, or ``floor`` absolute."""

    dtype: torch.dtype
    loss: float
    grad: float
    floor: float


FLOAT64 = Tolerance(torch.float64, loss=1e-9, grad=1e-9, floor=1e-12)
FLOAT32 = Tolerance(torch.float32, loss=1e-4, grad=1e-3, floor=1e-6)


@dataclass(frozen=True)
class Deviation:
    """Worst relative errors of one case; an error at the floor counts as one at the tolerance, inf or nan as inf."""

    case: GoldenCase
    loss: float
    grad: float
    passed: bool


def relative_error(actual: float, expected: float, tolerance: float, floor: float) -> float:
    """|actual − expected| over the larger of |expected| and floor/tolerance; inf where ``actual`` is inf or nan."""
    if not math.isfinite(actual):
        return math.inf
    return abs(actual - expected) / max(abs(expected), floor / tolerance)


def check_case(case: GoldenCase, tolerance: Tolerance) -> Deviation:
    """Errors of one case in one precision.

    Raises:
        DataError: a loss of the user's own fails.
    """
    try:
        loss, grad = case.evaluate(tolerance.dtype)
    except Exception as error:
        if case.name in LOSSES:
            raise
        raise DataError(f"{case.name} raised {type(error).__name__}: {error}", case.where, "fix the loss") from error
    loss_error = relative_error(loss, case.expected_loss, tolerance.loss, tolerance.floor)
    grad_error = max(
        relative_error(actual, expected, tolerance.grad, tolerance.floor)
        for actual, expected in zip(grad, case.expected_grad, strict=True)
    )
    passed = loss_error <= tolerance.loss and grad_error <= tolerance.grad
    return Deviation(case, loss_error, grad_error, passed)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the files named on the command line, print a table and the failures, return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mpo.losses.conformance", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="golden file, a JSON list of cases")
    parser.add_argument(
        "--allow-import", action="store_true", help="let a case name its loss as package.module:Class and import it"
    )
    arguments = parser.parse_args(argv)
    try:
        cases = [case for path in arguments.files for case in read_golden(path, arguments.allow_import)]
        results = {tolerance: [check_case(case, tolerance) for case in cases] for tolerance in (FLOAT64, FLOAT32)}
    except UserError as error:
        print(f"mpo: error: {error}", file=sys.stderr)
        return EXIT_CODE
    _print_table(results)
    failures = [(tolerance, result) for tolerance, found in results.items() for result in found if not result.passed]
    for tolerance, result in failures:
        print(
            f"{result.case.where}: {result.case.name} ({result.case.regime}) out of tolerance in "
            f"{_name(tolerance)}: loss {result.loss:.1e} (allowed {tolerance.loss:.0e}), "
            f"gradient {result.grad:.1e} (allowed {tolerance.grad:.0e})"
        )
    verdict = f"{len(failures)} failures" if failures else "all within tolerance"
    print(f"{len(cases)} cases in {len(results)} precisions: {verdict}")
    return 1 if failures else 0


def _print_table(results: dict[Tolerance, list[Deviation]]) -> None:
    by_name: dict[str, list[list[Deviation]]] = {}
    for column, found in enumerate(results.values()):
        for result in found:
            by_name.setdefault(result.case.name, [[] for _ in results])[column].append(result)
    width = max(len(name) for name in by_name)
    titles = "".join(f"  {_name(tolerance)} loss/grad  {'worst':<10}" for tolerance in results)
    print(f"{'loss':<{width}}  cases{titles}")
    for name, columns in by_name.items():
        print(f"{name:<{width}}  {len(columns[0]):5d}" + "".join(_worst(found) for found in columns))


def _worst(found: Iterable[Deviation]) -> str:
    results = list(found)
    worst = max(results, key=lambda result: max(result.loss, result.grad))
    loss, grad = max(result.loss for result in results), max(result.grad for result in results)
    place = worst.case.where.rpartition(":")[2]
    return f"  {loss:8.1e} {grad:8.1e}  {place:<10}"


def _name(tolerance: Tolerance) -> str:
    return str(tolerance.dtype).removeprefix("torch.")


if __name__ == "__main__":
    sys.exit(main())
