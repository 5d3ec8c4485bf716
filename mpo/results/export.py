"""Results in other formats: every estimate as CSV, JSON or parquet, means over seeds as a LaTeX table. No torch."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence

from mpo.plain import finite
from mpo.results.files import AS_JSON, OF_ESTIMATE, OF_RUN, table
from mpo.results.groups import means, newest
from mpo.results.records import SCHEMA_VERSION, Row
from mpo.results.titles import title
from mpo.track.units import number


def as_csv(rows: Sequence[Row]) -> bytes:
    """A line an estimate; values that are no numbers, and absent ones, are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*OF_RUN, *OF_ESTIMATE])
    for record in table(rows).to_pylist():
        writer.writerow(finite(list(record.values())))
    return out.getvalue().encode()


def as_json(rows: Sequence[Row]) -> bytes:
    """One object: ``schema`` and ``rows``, an object an estimate."""
    records = finite(table(rows).to_pylist())
    for record in records:
        record |= {name: json.loads(record[name]) for name in AS_JSON}
    return (json.dumps({"schema": SCHEMA_VERSION, "rows": records}, allow_nan=False) + "\n").encode()


def as_parquet(rows: Sequence[Row]) -> bytes:
    """A row an estimate."""
    import pyarrow
    from pyarrow import parquet

    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(table(rows), buffer, compression="zstd")
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def as_latex(rows: Sequence[Row]) -> bytes:
    """A ``tabular`` (booktabs) of means over seeds with standard errors: a line a group, a column a metric."""
    found = means(newest(rows)[0])
    abouts = list(dict.fromkeys(each.about for each in found))
    cells = {(each.config_key, each.about): number(each.value, each.standard_error) for each in found}
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(abouts)}}}",
        r"\toprule",
        " & ".join(["", *(_escaped(title(about)) for about in abouts)]) + r" \\",
        r"\midrule",
    ]
    for key, group in {each.config_key: each.group for each in found}.items():
        shown = [cells.get((key, about), "–") for about in abouts]
        lines.append(" & ".join([_escaped(group), *(_math(cell) for cell in shown)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]).encode()


FORMATS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "csv": as_csv,
    "latex": as_latex,
    "json": as_json,
    "parquet": as_parquet,
}


def _math(cell: str) -> str:
    return "--" if cell == "–" else f"${cell.replace('±', chr(92) + 'pm').replace(',', '{,}')}$"


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    return re.sub(r"[\\~^–&%$#_{}]", lambda found: special.get(found.group(), f"\\{found.group()}"), text)
