"""Which runs and estimates are meant: conditions as people type them. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mpo.config.wording import hint
from mpo.errors import DataError
from mpo.report.labels import flat
from mpo.results.records import Row

OF_ESTIMATE = ("metric", "split", "temperature", "round", "judge", "baseline")
OF_RUN = ("run_key", "config_key", "name", "seed", "commit", "hardware", "created", "note")


@dataclass(frozen=True)
class Condition:
    """``key=text``, the key one of an estimate, a run or, dotted, its configuration; without a key a run's name, or the
    beginning of its id."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}={self.text}" if self.key else self.text

    def applies(self, row: Row) -> bool:
        """Whether the key is one of this row."""
        return not self.key or self.key in OF_ESTIMATE or self.key in OF_RUN or self.key in flat(row.run.config)

    def holds(self, row: Row) -> bool:
        """Whether the row is meant."""
        if not self.key:
            return row.run.name == self.text or row.run.id.startswith(self.text)
        if self.key in OF_ESTIMATE:
            return _is(getattr(row, self.key), self.text)
        if self.key in OF_RUN:
            return _is(getattr(row.run, self.key), self.text)
        values = flat(row.run.config)
        return self.key in values and _is(values[self.key], self.text, self.key.endswith("_target_"))


def conditions(texts: Iterable[str]) -> list[Condition]:
    """Of texts like ``loss._target_=mpo.losses.WMPO,seed=0``: all must hold."""
    parts = [part.strip() for text in texts for part in re.split(r",(?=[\w.]+=)", text)]
    for part in parts:
        if not part:
            raise DataError("an empty condition", "", "give KEY=VALUE, a run's name or its id")
    split = [part.partition("=") for part in parts]
    return [Condition(key, text) if equals else Condition("", key) for key, equals, text in split]


def select(rows: Sequence[Row], wanted: Sequence[Condition]) -> list[Row]:
    """Rows for which all conditions hold.

    Raises:
        DataError: a key is in no run, or nothing is left.
    """
    left = list(rows)
    for condition in wanted:
        if not any(condition.applies(row) for row in rows):
            known = {key for row in rows for key in flat(row.run.config)}
            remedy = hint(condition.key, {*known, *OF_ESTIMATE, *OF_RUN})
            raise DataError("no run has this key", condition.key, remedy)
        left = [row for row in left if condition.holds(row)]
        if not left:
            said = ", ".join(map(str, wanted[: wanted.index(condition) + 1]))
            raise DataError(f"no result has {said}", "", "see python -m mpo.results list")
    return left


def _is(value: Any, text: str, is_class: bool = False) -> bool:
    """Whether people mean ``value`` by ``text``; a class may be called by its name alone."""
    if isinstance(value, str):
        return text == value or (is_class and text == value.rsplit(".", 1)[-1])
    if isinstance(value, bool) or value is None:
        return text.lower() in ({True: ("true",), False: ("false",), None: ("null", "none", "")}[value])
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    try:
        return bool(yaml.safe_load(text) == value)
    except yaml.YAMLError:
        return False
