"""The layouts by name, and how ``auto`` tells them apart."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from mpo.data.sources import (
    chat,
    pairs,
    prompts,
    response_sets,
    ultrafeedback,
    ultrafeedback_armorm,
    ultrafeedback_binarized,
)
from mpo.data.sources.columns import COMMON, UNUSED
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.errors import DataError


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout: the keys that give it away, the columns that its parser reads, the parser, the score fields that may be
    chosen (None: any name), and whether its sets have responses."""

    name: str
    keys: frozenset[str]
    reads: frozenset[str]
    parse: Callable[[Row, str | None, Warn], Draft]
    score_fields: tuple[str, ...] | None
    gives_responses: bool = True


# Most telling first: the binarized data also has messages, and Armo's also has chosen and rejected; most have a prompt.
LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "ultrafeedback", ultrafeedback.KEYS, ultrafeedback.READS, ultrafeedback.parse, ultrafeedback.SCORE_FIELDS
        ),
        Layout(
            "ultrafeedback_armorm",
            ultrafeedback_armorm.KEYS,
            ultrafeedback_armorm.READS,
            ultrafeedback_armorm.parse,
            None,
        ),
        Layout(
            "ultrafeedback_binarized",
            ultrafeedback_binarized.KEYS,
            ultrafeedback_binarized.READS,
            ultrafeedback_binarized.parse,
            (),
        ),
        Layout("pairs", pairs.KEYS, pairs.READS, pairs.parse, ()),
        Layout("response_sets", response_sets.KEYS, response_sets.READS, response_sets.parse, None),
        Layout("chat", chat.KEYS, chat.READS, chat.parse, ()),
        Layout("prompts", prompts.KEYS, prompts.READS, prompts.parse, (), gives_responses=False),
    )
}


def columns_of_interest(score_field: str | None) -> frozenset[str]:
    """Every column that some layout reads or that is worth a word where it isn't read; a table's others are not."""
    read = frozenset[str]().union(*(layout.reads | layout.keys for layout in LAYOUTS.values()))
    return read | COMMON | UNUSED | ({score_field} if score_field else set())


def check_layout(name: str, score_field: str | None) -> None:
    """Raise ``DataError`` for an unknown layout, or a score field that the layout doesn't have."""
    if name == "auto":
        return
    if name not in LAYOUTS:
        close = difflib.get_close_matches(name, ["auto", *LAYOUTS], n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise DataError(f"unknown layout '{name}'", "layout", f"{hint}choose one of auto, {', '.join(LAYOUTS)}")
    allowed = LAYOUTS[name].score_fields
    if score_field is not None and allowed is not None and score_field not in allowed:
        remedy = f"choose one of {', '.join(allowed)}" if allowed else "leave score_field out"
        raise DataError(f"layout '{name}' has no score field '{score_field}'", "score_field", remedy)


def detect_layout(row: Row, where: str) -> str:
    """The first layout whose keys the row has; raises ``DataError`` with the row's keys if there is none."""
    for layout in LAYOUTS.values():
        if layout.keys <= row.keys():
            return layout.name
    found = ", ".join(sorted(row)) or "no keys"
    raise DataError(f"no layout matches a row with {found}", where, f"name one: {', '.join(LAYOUTS)}")
