"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table with the first ``left`` columns aligned left and the rest right; a bar in a cell is escaped.

    Raises:
        ValueError: a row with more or fewer cells than the header.
    """
    rules = ["---" if index < left else "---:" for index in range(len(header))]
    lines = [_line(header), _line(rules)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells under {len(header)} headings: {row}")
        lines.append(_line(row))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
