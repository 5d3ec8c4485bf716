"""``python -m mpo.data.check SOURCE…``: what a source holds, and every row that cannot be used. Imports no torch."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mpo.commands import exit_status
from mpo.data.problems import Problem, ProblemCounts, Reason
from mpo.data.sources import LAYOUTS, SourceSpec, read_sets, resolve_layout
from mpo.data.statistics import SetStatistics
from mpo.errors import EXIT_CODE, printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the sources; 0 if every row is usable, 2 otherwise or for a source that cannot be read."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: EXIT_CODE if _check(options) else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mpo.data.check",
        description="Show what data sources hold, and each problem as file:line: reason: message.",
        epilog="exit status: 0 every row is usable (warnings are allowed), 2 otherwise",
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=".jsonl, .jsonl.gz, .json, .parquet or a hub name")
    parser.add_argument("--layout", default="auto", help=f"auto (default), {', '.join(LAYOUTS)}")
    parser.add_argument("--split", action="append", help="split of a hub data set (default train; may be repeated)")
    parser.add_argument("--revision", help="revision of a hub data set")
    parser.add_argument("--score-field", help="which score, where the layout has several")
    parser.add_argument(
        "--heldout", action="append", default=[], metavar="OTHER", help="data that must share no prompt"
    )
    parser.add_argument("--max-problems", type=int, default=20, help="problems shown per source (default 20)")
    return parser


def _check(options: argparse.Namespace) -> bool:
    """Print everything; True if there was an error or a prompt shared with held-out data."""
    failed = False
    seen: list[tuple[str, bool, SetStatistics]] = []
    for name, heldout, spec in _specs(options):
        print(f"{printable(name)}: reading", flush=True)
        print(f"  layout            {resolve_layout(spec)}{' (found)' if options.layout == 'auto' else ''}", flush=True)
        printer = _Printer(options.max_problems, {Reason.NO_SCORE} if options.score_field else set())
        statistics = SetStatistics()
        for one in read_sets(spec, printer):
            statistics.add(one)
        printer.finish()
        for line in statistics.lines():
            print(f"  {line}")
        seen.append((name, heldout, statistics))
        failed = failed or bool(printer.counts.errors)
    for (name_a, heldout_a, a), (name_b, heldout_b, b) in itertools.combinations(seen, 2):
        shared = len(a.prompts & b.prompts)
        contaminated = heldout_a != heldout_b and shared > 0
        note = "  ERROR: held-out data is contaminated" if contaminated else ""
        share = shared / max(1, len(b.prompts))
        print(
            f"shared prompts: {printable(name_a)} and {printable(name_b)}: {shared} ({share:.1%} of the latter){note}"
        )
        failed = failed or contaminated
    return failed


def _specs(options: argparse.Namespace) -> Iterator[tuple[str, bool, SourceSpec]]:
    """Name, whether held out, and spec of everything to read; only a hub data set has splits."""
    named = [(source, False) for source in options.sources] + [(source, True) for source in options.heldout]
    for source, heldout in named:
        splits = ["train"] if Path(source).is_file() else options.split or ["train"]
        for split in splits:
            name = source if len(splits) == 1 else f"{source} [{split}]"
            yield name, heldout, SourceSpec(source, options.layout, split, options.revision, options.score_field)


class _Printer:
    """Shows the first problems, counts all; warnings of the ``fatal`` reasons are errors."""

    def __init__(self, limit: int, fatal: set[Reason]) -> None:
        self.counts = ProblemCounts()
        self._fatal = fatal
        self._limit, self._seen = limit, 0

    def __call__(self, problem: Problem) -> None:
        if problem.reason_code in self._fatal:
            problem = replace(problem, severity="error")
        self.counts(problem)
        self._seen += 1
        if self._seen <= self._limit:
            note = "" if problem.severity == "error" else " (warning)"
            print(f"  {problem}{note}", flush=True)

    def finish(self) -> None:
        if self._seen > self._limit:
            print(f"  … and {self._seen - self._limit} more problems")
        for label, counts in (("errors", self.counts.errors), ("warnings", self.counts.warnings)):
            by_reason = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
            print(f"  {label:<18}{counts.total()}{': ' if by_reason else ''}{by_reason}")


if __name__ == "__main__":
    sys.exit(main())
