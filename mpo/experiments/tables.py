"""Measured beside published numbers: as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpo.experiments.measured import Numbers
from mpo.experiments.spec import Axis, Column, Experiment
from mpo.experiments.statistics import Difference, paired, summarise
from mpo.report.markdown import table as markdown_table

NOTHING = "–"
PUBLISHED = {
    "lc": "LC %",
    "wr": "WR %",
    "ah": "Arena-Hard %",
    "mt": "MT-Bench",
    "se": "error of LC",
}
"""Columns of the papers: length-controlled and raw win rate of AlpacaEval 2, and so on."""


@dataclass(frozen=True, slots=True)
class Table:
    """A header and rows of text, for people."""

    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """A table of GitHub's Markdown."""
        return markdown_table(self.header, self.rows).rstrip()

    def latex(self) -> str:
        """A tabular of booktabs."""
        body = [" & ".join(map(_latex, row)) + r" \\" for row in self.rows]
        head = " & ".join(map(_latex, self.header)) + r" \\"
        columns = "l" + "r" * (len(self.header) - 1)
        return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
                          r"\end{tabular}"]) + "\n"  # fmt: skip


def _latex(text: str) -> str:
    for character in "&%#_":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("–", "--").replace(">", "$>$")


def measured_table(
    experiment: Experiment, columns: Sequence[Column], blocks: Sequence[str], values: Sequence[str], numbers: Numbers,
    published: Mapping[str, Any] | None,
) -> Table:  # fmt: skip
    """Each row of the experiment, in each block and at each value of the axis, beside the paper's where it has such a
    row."""
    beside = _beside(experiment, published)
    several = [("block", blocks), ("at", values)]
    shown = [name for name, one in several if len(one) > 1]
    header = ["row", *shown, *(column.label for column in columns)]
    header += [f"median; lowest to highest {columns[0].label}"]
    if experiment.compare is not None:
        header += [f"{columns[0].label} minus {experiment.compare}'s"]
    header += [f"published {label}" for label, _ in beside]
    rows = []
    for block in blocks:
        for value in values:
            for name in experiment.rows:
                row = [name, *([block] if len(blocks) > 1 else []), *([value] if len(values) > 1 else [])]
                row += _measured(experiment, columns, (block, name, value), numbers)
                rows.append(row + [found.get(name, NOTHING) for _, found in beside])
    return Table(header, rows)


def _measured(
    experiment: Experiment, columns: Sequence[Column], place: tuple[str, str, str], numbers: Numbers
) -> Iterator[str]:
    for column in columns:
        found = numbers.of(place, column)
        yield _with_error(list(found.values()), column) if found else NOTHING
    first = numbers.of(place, columns[0])
    if first:
        one, digits = summarise(list(first.values())), columns[0].decimals
        yield f"{one.median:.{digits}f}; {one.lowest:.{digits}f} to {one.highest:.{digits}f}"
    else:
        yield NOTHING
    if experiment.compare is not None:
        block, name, value = place
        base = numbers.of((block, experiment.compare, value), columns[0])
        yield NOTHING if name == experiment.compare else difference_text(paired(first, base), columns[0].decimals)


def _with_error(values: Sequence[float], column: Column) -> str:
    one = summarise(values)
    error = "" if math.isnan(one.error) else f" ± {one.error:.{column.decimals}f}"
    return f"{one.mean:.{column.decimals}f}{error}"


def difference_text(found: Difference, decimals: int) -> str:
    """A difference with its standard error and 95 % interval."""
    if found.n == 0:
        return NOTHING
    if found.n == 1:
        return f"{found.mean:+.{decimals}f}"
    interval = f"{found.low:+.{decimals}f} to {found.high:+.{decimals}f}"
    return f"{found.mean:+.{decimals}f} ± {found.error:.{decimals}f} ({interval})"


def _beside(experiment: Experiment, published: Mapping[str, Any] | None) -> list[tuple[str, dict[str, str]]]:
    """Published columns whose rows are the experiment's: label, and text by row."""
    if published is None or len(experiment.rows) == 0:
        return []
    found = []
    for block, rows in blocks_of(published).items():
        if not any(str(row) in experiment.rows for row in rows):
            continue
        for index, column in enumerate(published["columns"]):
            texts = {str(row): f"{values[index]:g}" for row, values in rows.items()}
            found.append((f"{PUBLISHED.get(column, column)}, {block}", texts))
    return found


def published_table(experiment: Experiment, published: Mapping[str, Any] | None) -> Table | None:
    """The paper's table as it stands, where its rows are not the experiment's."""
    if published is None or _beside(experiment, published):
        return None
    columns = [PUBLISHED.get(column, column) for column in published["columns"]]
    rows = [
        [f"{block} {row}", *(f"{value:g}" for value in values)]
        for block, of_block in blocks_of(published).items()
        for row, values in of_block.items()
    ]
    return Table(["published", *columns], rows)


def blocks_of(published: Mapping[str, Any]) -> dict[str, dict[Any, list[float]]]:
    return {key: value for key, value in published.items() if key != "columns"}


def long_csv(
    experiment: Experiment, columns: Sequence[Column], blocks: Sequence[str], values: Sequence[str], numbers: Numbers
) -> str:
    """Every measured number: block, row, value of the axis, replication, column, number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["block", "row", "at", "replication", "metric", "value"])
    for block in blocks:
        for name in experiment.rows:
            for value in values:
                for column in columns:
                    for unit, number in sorted(numbers.of((block, name, value), column).items()):
                        writer.writerow([block, name, value, unit, column.label, repr(number)])
    return out.getvalue()


def claims(
    experiment: Experiment, column: Column, blocks: Sequence[str], axis: Axis | None, numbers: Numbers
) -> list[tuple[str, Difference]]:
    """Each ordering of the paper with the measured difference, in each block; over an axis at its last value."""
    found = []
    for claim in experiment.claims:
        sides, _, at = claim.partition("@")
        left, right = (side.strip() for side in sides.split(">"))
        value = at.strip() or (axis.values[-1] if axis is not None else "")
        for block in blocks:
            label = f"{left} > {right}" + (f", at {value}" if value else "") + (f", {block}" if len(blocks) > 1 else "")
            places = [numbers.of((block, side, value), column) for side in (left, right)]
            found.append((label, paired(*places)))
    return found


def claim_line(label: str, found: Difference, decimals: int) -> str:
    """One claim in a sentence."""
    if found.n < 2:
        return f"- {label}: not measured."
    numbers = difference_text(found, decimals)
    power = f"{found.n} pairs with this spread resolve {found.resolvable:.{decimals}f}"
    return f"- {label}: **{found.verdict}**, {numbers}; {power}."
