"""``python -m mpo.evaluate.winrate FILE…``: raw and length-controlled win rates of judged models. Imports no torch."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from typing import Any

import numpy
import scipy

import mpo
from mpo.commands import exit_status
from mpo.errors import DataError, printable
from mpo.evaluate.annotations.judgements import Judgement, read_judgements
from mpo.evaluate.annotations.length_control import DIFFICULTY_PRIOR, LENGTH_PRIOR, QUALITY_PRIOR
from mpo.evaluate.annotations.win_rates import Group, ModelResult, win_rates
from mpo.plain import finite, to_plain
from mpo.track.units import number

SCHEMA = 1
"""Version of the JSON object's fields."""
SHOWN = 20
"""Unusable records that are shown; the rest are counted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the win rates; 0, or 2 for input that cannot be used."""
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _print(options))


def _print(options: argparse.Namespace) -> int:
    judgements = _read(options.files, options.baseline)
    groups = win_rates(judgements)
    if options.json:
        print(json.dumps(_as_object(options, judgements, groups), allow_nan=False))
    else:
        print("\n\n".join("\n".join(_lines(group)) for group in groups))
        for line in _file_notes(judgements):
            print(printable(f"note: {line}"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mpo.evaluate.winrate",
        description="Win rates of models, raw and length-controlled, from annotations in AlpacaEval's format.",
        epilog="exit status: 0 done, 2 for input that cannot be used",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="annotations, a JSON list of records, may be gzipped")
    parser.add_argument("--baseline", metavar="NAME", help="the baseline, on either side (default: generator_1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _read(files: list[str], baseline: str | None) -> list[Judgement]:
    problems = 0

    def show(problem: DataError) -> None:
        nonlocal problems
        problems += 1
        if problems <= SHOWN:
            print(f"mpo: error: {problem}", file=sys.stderr)

    judgements = read_judgements(files, baseline, show)
    if problems:
        total = problems + len(judgements)
        raise DataError(f"{problems} of {total} records cannot be used", "", "fix them, or take them out")
    return judgements


def _file_notes(judgements: list[Judgement]) -> list[str]:
    """Files in which judges or baselines meet, whose records go to different tables; a baseline that may be none."""
    lines = []
    for what, name_of in (("judges", lambda each: each.judge), ("baselines", lambda each: each.baseline)):
        by_file: dict[str, dict[str, None]] = {}
        for each in judgements:
            by_file.setdefault(each.file, {})[name_of(each)] = None
        for file, names in by_file.items():
            if len(names) > 1:
                lines.append(f"{file} holds {len(names)} {what} ({', '.join(names)}), each reported by itself")
    models, baselines = {each.model for each in judgements}, {each.baseline for each in judgements}
    if len(models) == 1 < len(baselines):
        model = models.pop()
        lines.append(f"generator_2 is {model} in every record; if it is the baseline, add --baseline {model}")
    return lines


def _lines(group: Group) -> list[str]:
    count = f"{len(group.models)} model{'s' if len(group.models) > 1 else ''}, {group.instructions} instructions"
    head = printable(f"judge {group.judge}, baseline {group.baseline}: {count}")
    repeated = any(model.repeated for model in group.models)
    title = ["model", "win rate %", *(["judge ±"] if repeated else []), "length-controlled %"]
    title += [*(["judge ±"] if repeated else []), "judgements", "ties", "length", "baseline's"]
    rows = [title, *(_row(model, repeated) for model in group.models)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(title))]
    table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    difficulty = "not estimated" if group.difficulty is None else f"{group.difficulty:.2f}"
    effect = number(group.length_effect, group.length_effect_error)
    fit = f"effect of length {effect} log-odds; standard deviation of the instructions' difficulty {difficulty}"
    notes = [*group.notes, *(line for model in group.models for line in _gaps(model))]
    return [head, *table, fit, *(printable(f"note: {note}") for note in notes)]


def _row(model: ModelResult, repeated: bool) -> list[str]:
    raw, controlled = [number(model.judge_error)], [number(model.length_controlled_judge_error)]
    return [
        printable(model.model),
        number(model.win_rate, model.standard_error),
        *(raw if repeated else []),
        number(model.length_controlled, model.length_controlled_error),
        *(controlled if repeated else []),
        str(model.judgements),
        str(model.ties),
        f"{model.length:.0f}",
        f"{model.baseline_length:.0f}",
    ]


def _gaps(model: ModelResult) -> list[str]:
    """What is missing, doubled or turned of a model, a sentence each."""
    found = [
        (model.missing, "instruction of other models is missing", "instructions of other models are missing"),
        (model.unjudged, "record without a preference is left out", "records without a preference are left out"),
        (model.repeated, "instruction judged repeatedly is averaged", "instructions judged repeatedly are averaged"),
        (model.copies, "record is a copy of another", "records are copies of others"),
        (model.other_answers, "repeated instruction has several answers", "repeated instructions have several answers"),
        (model.turned, "record has the model first: turned", "records have the model first: turned"),
    ]
    return [f"{model.model}: {count} {one if count == 1 else several}" for count, one, several in found if count]


def _as_object(options: argparse.Namespace, judgements: list[Judgement], groups: list[Group]) -> dict[str, Any]:
    priors = {"length": LENGTH_PRIOR, "difficulty": DIFFICULTY_PRIOR, "quality": QUALITY_PRIOR}
    versions = {"mpo": mpo.__version__, "numpy": numpy.__version__, "scipy": scipy.__version__}
    return {
        "schema": SCHEMA,
        "versions": {**versions, "python": platform.python_version()},
        "options": {"files": options.files, "baseline": options.baseline, "priors": priors},
        "notes": _file_notes(judgements),
        "groups": finite(to_plain(groups)),
    }


if __name__ == "__main__":
    sys.exit(main())
