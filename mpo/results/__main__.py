"""``python -m mpo.results``: what finished runs have given. Imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mpo.cache.artifacts import write_bytes
from mpo.commands import exit_status
from mpo.errors import DataError, printable
from mpo.results.records import Row
from mpo.results.select import Condition, conditions, select
from mpo.results.store import VARIABLE, Results, default_folder

EXPORTS = ("csv", "latex", "json", "parquet")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 for what cannot be used."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    action: Callable[[Results, argparse.Namespace], None] = options.action
    store = Results.open(options.store or default_folder())
    if not store.folder.is_dir() and action is not _merge:
        raise DataError("there are no results", str(store.folder), f"name the store: --store or {VARIABLE}")
    if action is not _merge:
        _note_problems(store.problems)
    action(store, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", metavar="FOLDER", help=f"the store (default: {VARIABLE}, or results in the cache)")
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE",
        help="only these: a dotted config key, seed, name, split, judge, …; may be repeated",
    )  # fmt: skip
    chosen.add_argument("--metric", help="only this metric, e.g. true_reward")
    chosen.add_argument("--temperature", help="only estimates at this temperature")
    parser = argparse.ArgumentParser(
        prog="python -m mpo.results",
        description="What finished runs have given.",
        epilog="exit status: 0 done, 2 for what cannot be used",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, action: Callable[[Results, argparse.Namespace], None], text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, parents=[common, *parents])
        added.set_defaults(action=action)
        return added

    command("list", _list, "Means over seeds: a line for each configuration and estimate of the last round.", chosen)
    compared = command("compare", _compare, "A minus B, paired over prompts and then over seeds.", chosen)
    for side in ("A", "B"):
        compared.add_argument(side.lower(), metavar=side, help="KEY=VALUE[,KEY=VALUE…], or a run's name or id")
    exported = command("export", _export, "Every estimate, or (latex) means over seeds, in another format.", chosen)
    exported.add_argument("--format", choices=EXPORTS, required=True)
    exported.add_argument("--out", metavar="FILE", help="write it there (default: standard output)")
    merged = command("merge", _merge, "Copy the runs of other stores into this one.")
    merged.add_argument("others", nargs="+", metavar="OTHER", help="folder of another store")
    command("show", _show, "Configuration, versions, commit and hardware of a run.").add_argument(
        "run", metavar="RUN", help="its id, the beginning of it, or its name"
    )
    return parser


def _list(store: Results, options: argparse.Namespace) -> None:
    from mpo.results.groups import last_rounds, means, newest
    from mpo.results.text import list_lines

    rows, wanted = _chosen(store, options)
    if not any(condition.key == "round" for condition in wanted):
        rows = last_rounds(rows)
    rows, older = newest(rows)
    _print(list_lines(means(rows)))
    if older:
        print(f"note: older runs of the same configuration and seed that are left out: {older}")
    for note in dict.fromkeys(row.run.note for row in rows if row.run.note):
        print(f"note: {printable(note)}")


def _compare(store: Results, options: argparse.Namespace) -> None:
    from mpo.results.compare import compare
    from mpo.results.text import comparison_lines

    rows, _ = _chosen(store, options)
    a, b = (select(rows, conditions([side])) for side in (options.a, options.b))
    _print(comparison_lines(*compare(store, a, b)))


def _export(store: Results, options: argparse.Namespace) -> None:
    from mpo.results.export import FORMATS

    rows, _ = _chosen(store, options)
    if options.out is None and options.format == "parquet" and sys.stdout.isatty():
        raise DataError("parquet is no text for a terminal", "--format", "give --out FILE")
    content = FORMATS[options.format](rows)
    if options.out is not None:
        write_bytes(Path(options.out), content)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)


def _merge(store: Results, options: argparse.Namespace) -> None:
    others = [Results.open(name) for name in options.others]
    for other in others:
        if not other.folder.is_dir():
            raise DataError("there are no results", str(other.folder), "name the folder of another store")
    for other in others:
        done = store.merge(other)
        print(f"{printable(str(other.folder))}: {done.new} new, {done.known} already here")
        _note_problems(done.problems)


def _show(store: Results, options: argparse.Namespace) -> None:
    from mpo.results.text import run_lines

    _print(run_lines(store.run(options.run)))


def _chosen(store: Results, options: argparse.Namespace) -> tuple[list[Row], list[Condition]]:
    rows = store.rows()
    if not rows:
        raise DataError("there are no results", str(store.folder), "end a run first")
    wanted = conditions(options.where)
    wanted += [Condition(key, getattr(options, key)) for key in ("metric", "temperature") if getattr(options, key)]
    return select(rows, wanted), wanted


def _note_problems(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"mpo: left out: {printable(problem)}", file=sys.stderr)
    if problems:
        print(f"mpo: {len(problems)} file{'s' if len(problems) > 1 else ''} left out", file=sys.stderr)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


if __name__ == "__main__":
    sys.exit(main())
