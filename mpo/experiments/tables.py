"""Measured beside published numbers: as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpo.experiments.measured import Numbers
from mpo.experiments.spec import AtScale, Axis, Column, Experiment
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


_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%#_${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
    | {character: f"${character}$" for character in "<>|"}
)


def _latex(text: str) -> str:
    return " ".join(text.translate(_LATEX).split())


def measured_table(
    experiment: Experiment, columns: Sequence[Column], blocks: Sequence[str], values: Sequence[str], numbers: Numbers,
    published: Mapping[str, Any] | None, units: int, at: AtScale,
) -> Table:  # fmt: skip
    """Each row of the experiment, in each block and at each value of the axis, beside the paper's where it has such a
    row. A mean of fewer than ``units`` replications says of how many."""
    beside = _beside(experiment, published, blocks)
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
            for name in [name for name in experiment.rows if at.has(name, block)]:
                row = [name, *([block] if len(blocks) > 1 else []), *([value] if len(values) > 1 else [])]
                row += _measured(experiment, columns, (block, name, value), numbers, units)
                rows.append(row + [found.get((block, name), NOTHING) for _, found in beside])
    return Table(header, rows)


def _measured(
    experiment: Experiment, columns: Sequence[Column], place: tuple[str, str, str], numbers: Numbers, units: int
) -> Iterator[str]:
    for column in columns:
        found = numbers.of(place, column)
        yield _with_error(list(found.values()), column, units) if found else NOTHING
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


def _with_error(values: Sequence[float], column: Column, units: int) -> str:
    one = summarise(values)
    error = "" if math.isnan(one.error) else f" ± {one.error:.{column.decimals}f}"
    return f"{one.mean:.{column.decimals}f}{error}" + (f" (of {one.n})" if one.n < units else "")


def difference_text(found: Difference, decimals: int) -> str:
    """A difference with its standard error and 95 % interval."""
    if found.n == 0:
        return NOTHING
    if found.n == 1:
        return f"{found.mean:+.{decimals}f}"
    interval = f"{found.low:+.{decimals}f} to {found.high:+.{decimals}f}"
    return f"{found.mean:+.{decimals}f} ± {found.error:.{decimals}f} ({interval})"


def _beside(
    experiment: Experiment, published: Mapping[str, Any] | None, blocks: Sequence[str]
) -> list[tuple[str, dict[tuple[str, str], str]]]:
    """Published columns whose rows are the experiment's: label, and text by block and row.

    Where the blocks that are measured are the paper's, each has its own numbers beside it; else each has the first
    column of all of the paper's.
    """
    if published is None:
        return []
    papers = _papers(experiment, published)
    labels = [PUBLISHED.get(column, column) for column in published["columns"]]
    if set(blocks) <= set(papers):
        return [
            (label, {(b, row): f"{of[index]:g}" for b in blocks for row, of in papers[b].items()})
            for index, label in enumerate(labels)
        ]
    return [
        (f"{labels[0]}, {paper}", {(b, row): f"{of[0]:g}" for b in blocks for row, of in rows.items()})
        for paper, rows in papers.items()
    ]


def _papers(experiment: Experiment, published: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """The paper's blocks that have rows of the experiment."""
    of = blocks_of(published)
    return {block: rows for block, rows in of.items() if any(row in experiment.rows for row in rows)}


def published_table(experiment: Experiment, published: Mapping[str, Any] | None, blocks: Sequence[str]) -> Table | None:
    """The paper's table as it stands, where not all of it is beside the measured one."""
    if published is None or set(blocks) <= set(_papers(experiment, published)):
        return None
    columns = [PUBLISHED.get(column, column) for column in published["columns"]]
    rows = [
        [f"{block} {row}", *(f"{value:g}" for value in values)]
        for block, of_block in blocks_of(published).items()
        for row, values in of_block.items()
    ]
    return Table(["published", *columns], rows)


def blocks_of(published: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """The paper's numbers by block and row."""
    of = {key: value for key, value in published.items() if key != "columns"}
    return {key: {str(row): values for row, values in rows.items()} for key, rows in of.items()}


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
    experiment: Experiment, column: Column, blocks: Sequence[str], axis: Axis | None, numbers: Numbers, at: AtScale
) -> list[tuple[str, Difference]]:
    """Each ordering of the paper with the measured difference, in each block; over an axis at its last value."""
    found = []
    for claim in experiment.claims:
        sides, _, named = claim.partition("@")
        left, right = (side.strip() for side in sides.split(">"))
        value = named.strip() or (axis.values[-1] if axis is not None else "")
        for block in [block for block in blocks if at.has(left, block) and at.has(right, block)]:
            label = f"{left} > {right}" + (f", at {value}" if value else "") + (f", {block}" if len(blocks) > 1 else "")
            places = [numbers.of((block, side, value), column) for side in (left, right)]
            found.append((label, paired(*places)))
    return found


def claim_line(label: str, found: Difference, decimals: int) -> str:
    """One claim in a sentence."""
    if found.n == 0:
        return f"- {label}: not measured."
    if found.n == 1:
        return f"- {label}: {found.verdict}, {difference_text(found, decimals)} in one replication."
    numbers = difference_text(found, decimals)
    power = f"{found.n} pairs with this spread resolve {found.resolvable:.{decimals}f}"
    return f"- {label}: **{found.verdict}**, {numbers}; {power}."
