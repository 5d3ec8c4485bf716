"""Judgements of pairs of answers, read from annotations in AlpacaEval's format. No torch, no numpy.

A file is a JSON list of records with ``instruction``, ``output_1`` and ``generator_1`` (the baseline's), ``output_2``
and ``generator_2`` (the evaluated model's), ``preference`` and ``annotator`` (the judge). The preference is 1 where
output_1 wins, 2 where output_2 does, between them where the judge is not certain, 1.5 (or 0, as in older files) for a
tie, null or NaN where the judge gave none. Other fields are not read.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpo.errors import DataError

UNNAMED = "(not named)"
"""The judge of records without ``annotator``."""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One judgement, seen from the evaluated model's side.

    Attributes:
        where: ``file:row N``, rows from 1.
        file: as it was named.
        win: 0..1, how far the judge prefers the model's answer; None where it gave no preference.
        turned: whether the file has the model first.
    """

    where: str
    file: str
    instruction: str
    model: str
    baseline: str
    judge: str
    answer: str
    baseline_answer: str
    win: float | None
    turned: bool


def read_judgements(
    paths: Iterable[str], baseline: str | None, on_problem: Callable[[DataError], None]
) -> list[Judgement]:
    """All records of the files in their order; each that cannot be used goes to ``on_problem``.

    Args:
        baseline: name of the baseline, which may then stand on either side; None: it is generator_1 of each record.

    Raises:
        DataError: a file that cannot be read or is no list of records, or names from which the baseline isn't clear.
    """
    judgements = []
    for path in _unique(paths):
        for number, record in enumerate(read_records(path), start=1):
            try:
                judgements.append(judgement_of(record, f"{path}:row {number}", path, baseline))
            except DataError as error:
                on_problem(error)
    models = {each.model: each for each in reversed(judgements)}
    for each in judgements:
        if each.baseline in models:
            raise DataError(
                f"{each.baseline} is generator_1 here and generator_2 in {models[each.baseline].where}",
                each.where,
                "say which model is the baseline with --baseline NAME",
            )
    return judgements


def _unique(paths: Iterable[str]) -> list[str]:
    seen: dict[Path, str] = {}
    for path in paths:
        resolved = Path(path).resolve()
        if resolved in seen:
            raise DataError("the file is named twice", path, "name each file once")
        seen[resolved] = path
    return list(seen.values())


def read_records(path: str) -> list[Any]:
    """The elements of a JSON list in a file, gzipped or not; raises DataError for what is none, or is empty."""
    try:
        content = Path(path).read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        values = json.loads(content.decode("utf-8-sig"))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"the gzip data is broken: {error}", path, "copy the file again") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path, "check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", path, "save it as UTF-8") from None
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg} at column {error.colno}"
        raise DataError(what, f"{path}:{error.lineno}", "give a JSON list of records") from None
    except (RecursionError, ValueError) as error:  # too deep, or an integer of thousands of digits
        raise DataError(f"not JSON: {error}", path, "give a JSON list of records") from None
    if not isinstance(values, list):
        raise DataError(f"{_kind(values)}, not a list of records", path, "give a file in AlpacaEval's format")
    if not values:
        raise DataError("the list is empty", path, "give a file with at least one record")
    return values


def judgement_of(record: Any, where: str, file: str, baseline: str | None) -> Judgement:
    """One record as a judgement; raises DataError for one that cannot be used."""
    if not isinstance(record, Mapping):
        raise DataError(f"{_kind(record)}, not a record with fields", where, "take it out")
    first, second = _text(record, "generator_1", where), _text(record, "generator_2", where)
    if first == second:
        raise DataError(f"both outputs are by {first}", where, "take out a model judged against itself")
    if baseline is not None and baseline not in (first, second):
        raise DataError(
            f"neither generator_1 ({first}) nor generator_2 ({second}) is {baseline}",
            where,
            "name another --baseline, or leave this file out",
        )
    instruction = _text(record, "instruction", where)
    outputs = [_text(record, "output_1", where, may_be_empty=True), _text(record, "output_2", where, may_be_empty=True)]
    win = _win(record, where)
    judge = UNNAMED if record.get("annotator") is None else _text(record, "annotator", where)
    turned = second == baseline
    if turned:
        first, second, outputs = second, first, outputs[::-1]
        win = None if win is None else 1.0 - win
    return Judgement(where, file, instruction, second, first, judge, outputs[1], outputs[0], win, turned)


def _text(record: Mapping[str, Any], field: str, where: str, may_be_empty: bool = False) -> str:
    if field not in record:
        raise DataError(f"no {field}", where, f"add {field}, or take the record out")
    value = record[field]
    if not isinstance(value, str):
        raise DataError(f"{field} is {_kind(value)}, not text", where, f"give {field} as text, or take the record out")
    if not value and not may_be_empty:
        raise DataError(f"{field} is empty", where, f"fill {field} in, or take the record out")
    return value


def _win(record: Mapping[str, Any], where: str) -> float | None:
    scale = "give 1 (output_1 wins) to 2 (output_2 wins), 1.5 for a tie, null where the judge gave none"
    if "preference" not in record:
        raise DataError("no preference", where, scale)
    value = record["preference"]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"preference is {_kind(value)}, not a number", where, scale)
    if isinstance(value, float) and math.isnan(value):
        return None
    if value == 0:
        return 0.5
    if not 1 <= value <= 2:
        raise DataError(f"preference {value} is out of range", where, scale)
    return float(value) - 1.0


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
