"""Checked access to the fields of one raw row, shared by all layouts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mpo.data.problems import Reason, RowError
from mpo.types import Message, Response

Row = Mapping[str, Any]


class Warn(Protocol):
    """Takes a reason, a message and the field that it is counted by, if any."""

    def __call__(self, code: Reason, message: str, field: str = "", /) -> None: ...


@dataclass(frozen=True, slots=True)
class Draft:
    """What a layout finds in a row, before the checks and columns that all layouts share."""

    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    tools: str | None = None


def field(row: Row, name: str) -> Any:
    """The row's value of ``name``; raises ``RowError`` (missing_field) where it is absent or null."""
    value = row.get(name)
    if value is None:
        if name in row:
            raise RowError(Reason.MISSING_FIELD, f"'{name}' is null")
        raise RowError(Reason.MISSING_FIELD, f"no '{name}'; the row has {', '.join(sorted(row)) or 'no fields'}")
    return value


def text(value: object, name: str, reason: Reason) -> str:
    """``value`` as a string that can be encoded (JSON allows lone surrogates, tokenizers and Arrow don't)."""
    if not isinstance(value, str):
        raise RowError(reason, f"{name} is {kind(value)}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(Reason.NOT_UNICODE, f"{name} has a lone surrogate at character {error.start}") from None
    return value


def score(value: object, name: str) -> float | None:
    """A finite score, or None where the data has none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(Reason.SCORE_NOT_NUMBER, f"{name} is {kind(value)} {str(value)[:40]!r}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RowError(Reason.NAN_SCORE, f"{name} is {number}, not a finite number")
    return number


def items(value: object, name: str) -> list[Any]:
    """A list that holds something; raises ``RowError`` (no_responses) otherwise."""
    if not isinstance(value, list | tuple):
        raise RowError(Reason.NO_RESPONSES, f"{name} is {kind(value)}, not a list")
    if not value:
        raise RowError(Reason.NO_RESPONSES, f"{name} is empty")
    return list(value)


def parallel_scores(row: Row, name: str, count: int) -> list[float | None]:
    """The list ``name`` of scores, one a response; all None where the row has no such list."""
    values = row.get(name)
    if values is None:
        return [None] * count
    if not isinstance(values, list | tuple) or len(values) != count:
        found = f"{len(values)} scores" if isinstance(values, list | tuple) else kind(values)
        raise RowError(Reason.SCORE_COUNT, f"{name} is {found} for {count} responses")
    return [score(value, f"{name}[{index}]") for index, value in enumerate(values)]


def kind(value: object) -> str:
    """The JSON name of a value's type, for messages."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
