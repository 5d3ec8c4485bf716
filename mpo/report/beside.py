"""What was measured beside what was published: a table, a figure and a page, and how far the two orders agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes

from mpo.report import style
from mpo.report.curves import Drawn
from mpo.report.html import write_page
from mpo.report.markdown import table
from mpo.track.units import number

TOO_CLOSE = 2.0
"""Standard errors of a difference; two measured values that differ by less stand in no order."""

Side = Literal["measured", "published"]


@dataclass(frozen=True, slots=True)
class Value:
    """A number and its standard error, where there is one."""

    value: float
    standard_error: float | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """One row, a method say: what was measured and what a paper has; None where one of them is missing."""

    label: str
    measured: Value | None
    published: Value | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Rows of one quantity. The two sides may be in different units, so they are never drawn on one axis.

    Attributes:
        measured, published: what each side is, with unit and scale, such as ``"true reward, testbed"``.
        source: where the published numbers stand, such as ``"MPO, table 2"``.
    """

    title: str
    measured: str
    published: str
    source: str
    rows: tuple[Beside, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairs of rows that have both numbers and differ as published, by where they stand as measured."""

    same: int
    reversed: int
    too_close: int

    def __str__(self) -> str:
        total = self.same + self.reversed + self.too_close
        return (
            f"Of {total} pairs: {self.same} in the published order, {self.reversed} reversed, {self.too_close} too "
            f"close to tell (within {TOO_CLOSE:g} standard errors of their difference)."
        )


def agreement(rows: Sequence[Beside]) -> Agreement:
    """How the order as measured goes with the published one. The published values' own errors are not counted."""
    same = turned = close = 0
    both = [(row.measured, row.published) for row in rows if row.measured is not None and row.published is not None]
    for (measured_a, published_a), (measured_b, published_b) in itertools.combinations(both, 2):
        if published_a.value == published_b.value:
            continue
        difference = measured_a.value - measured_b.value
        error = math.hypot(measured_a.standard_error or 0.0, measured_b.standard_error or 0.0)
        if not abs(difference) > TOO_CLOSE * error:  # so written, a value that is not a number is in no order
            close += 1
        elif (difference > 0) == (published_a.value > published_b.value):
            same += 1
        else:
            turned += 1
    return Agreement(same, turned, close)


def markdown(panel: Panel) -> str:
    """The rows as a Markdown table under what they are, and the agreement of the orders."""
    header = ["", f"measured: {panel.measured}", f"published: {panel.published}", ""]
    cells = [[row.label, _cell(row.measured), _cell(row.published), row.note] for row in panel.rows]
    said = f"{panel.title} ({panel.source}). {agreement(panel.rows)}"
    return f"{said}\n\n{table(header, cells)}\n± is one standard error; – is not there.\n"


def figure(panel: Panel, path: Path) -> Drawn:
    """Both sides next to one another, a row a line, each on an axis of its own, with whiskers of one standard error."""
    with style.figure(path, width=8.4, height=1.3 + 0.34 * len(panel.rows)) as sheet:
        left, right = sheet.subplots(1, 2, sharey=True)
        _draw(left, panel.rows, "measured", panel.measured, 0)
        _draw(right, panel.rows, "published", panel.published, 1)
        left.set_yticks(range(len(panel.rows)), [row.label for row in panel.rows])
        left.set_ylim(len(panel.rows) - 0.5, -0.5)  # the first row on top
        right.tick_params(axis="y", length=0)
    return Drawn(path, panel.title, f"Published: {panel.source}. {agreement(panel.rows)}")


def _draw(axes: Axes, rows: Sequence[Beside], side: Side, what: str, index: int) -> None:
    found = [(place, getattr(row, side)) for place, row in enumerate(rows) if getattr(row, side) is not None]
    places, values = [place for place, _ in found], [value.value for _, value in found]
    errors = [value.standard_error or 0.0 for _, value in found]
    axes.errorbar(values, places, xerr=errors, fmt="o" if index == 0 else "D", color=style.colour(index), markersize=6)
    axes.set(title=side.capitalize(), xlabel=what)


def write_beside_page(
    path: Path, title: str, introduction: str, panels: Sequence[Panel], facts: Mapping[str, str]
) -> Path:
    """Writes ``path`` (HTML that loads nothing) with a figure and a table for each panel; PNG under ``figures/``.

    Args:
        introduction: what was run, and what its numbers cannot say.
        facts: versions, commit, hardware, command, as they are shown at the page's end.
    """
    figures = [
        figure(panel, path.parent / "figures" / f"{path.stem}_{place}.png") for place, panel in enumerate(panels)
    ]
    return write_page(
        path,
        "beside.html",
        title=title,
        introduction=introduction,
        panels=list(zip(panels, figures, strict=True)),
        facts_known=facts,
        cell=_cell,
    )


def _cell(value: Value | None) -> str:
    return "–" if value is None else number(value.value, value.standard_error)
