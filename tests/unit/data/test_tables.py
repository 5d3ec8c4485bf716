"""Arrow tables: columns of no interest are not read, values without a JSON form are converted."""

from __future__ import annotations

import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from mpo.data.sources import Problem, SourceSpec, read_sets
from mpo.errors import DataError
from mpo.types import ResponseSet

FAR = 253402300800000000
"""Microseconds to the year 10000, which Python's dates do not reach."""


def read(path: Path, **options: Any) -> tuple[list[ResponseSet], list[Problem]]:
    problems: list[Problem] = []
    return list(read_sets(SourceSpec(str(path), **options), problems.append)), problems


def table(**columns: Any) -> pyarrow.Table:
    scored = [{"text": "a", "score": 1.0}, {"text": "b", "score": 2.0}]
    return pyarrow.table({"prompt": ["x", "y"], "responses": [scored, scored], **columns})


COLUMNS = {
    "far time": pyarrow.array([FAR, 0], pyarrow.timestamp("us")),
    "unknown zone": pyarrow.array([1, None], pyarrow.timestamp("us", tz="Nowhere/Town")),
    "nanoseconds": pyarrow.array([1, 2], pyarrow.timestamp("ns")),
    "far day": pyarrow.array([2932897, 0], pyarrow.date32()),
    "time of day": pyarrow.array([1, 2], pyarrow.time64("ns")),
    "duration": pyarrow.array([1, 2], pyarrow.duration("us")),
    "bytes": pyarrow.array([b"\xff", b"a"], pyarrow.binary()),
    "decimal": pyarrow.array([decimal.Decimal("1.5"), None], pyarrow.decimal128(9, 2)),
    "map": pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int32())),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_that_nobody_reads_do_not_matter(tmp_path: Path, kind: str) -> None:
    parquet.write_table(table(created=COLUMNS[kind]), tmp_path / "rows.parquet")
    sets, problems = read(tmp_path / "rows.parquet")
    assert len(sets) == 2 and problems == []


@pytest.mark.parametrize("kind", sorted(set(COLUMNS) - {"unknown zone", "decimal", "map", "bytes"}))
def test_times_can_be_ids(tmp_path: Path, kind: str) -> None:
    parquet.write_table(table(id=COLUMNS[kind]), tmp_path / "rows.parquet")
    sets, problems = read(tmp_path / "rows.parquet")
    assert len({one.id for one in sets}) == 2 and problems == []


def test_scores_may_be_decimals_and_times_lie_deep(tmp_path: Path) -> None:
    entry = pyarrow.struct(
        [("text", pyarrow.string()), ("score", pyarrow.decimal128(9, 2)), ("seen", pyarrow.timestamp("us", tz="UTC"))]
    )
    rows = [[{"text": "a", "score": decimal.Decimal("1.25"), "seen": FAR}, {"text": "b", "score": 2, "seen": None}]]
    parquet.write_table(
        pyarrow.table({"prompt": ["x"], "responses": pyarrow.array(rows, pyarrow.list_(entry))}), tmp_path / "r.parquet"
    )
    (one,), problems = read(tmp_path / "r.parquet")
    assert [response.score for response in one.responses] == [1.25, 2.0]
    assert [problem.label for problem in problems] == ["unused_field (seen)"]


def test_fields_that_only_other_rows_have_are_not_part_of_tools_and_calls(tmp_path: Path) -> None:
    calls = [{"name": "f", "arguments": {"x": 1}}], [{"name": "g", "arguments": {"y": "z"}}]
    rows = [
        {"prompt": name, "tools": [call[0]], "chosen": [{"role": "assistant", "content": "", "tool_calls": call}],
         "rejected": [{"role": "assistant", "content": "no", "tool_calls": None}]}
        for name, call in zip("ab", calls, strict=True)
    ]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    sets, problems = read(tmp_path / "rows.parquet")
    assert problems == [] and [json.loads(one.tools or "") for one in sets] == [[call[0]] for call in calls]
    assert [json.loads(one.responses[0].tool_calls or "") for one in sets] == list(calls)


def test_a_table_without_known_columns_names_those_it_has(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"created": COLUMNS["far time"], "note": ["a", "b"]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="no layout matches a row with created, note"):
        read(tmp_path / "rows.parquet")
    (tmp_path / "rows.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="not readable as parquet"):
        read(tmp_path / "rows.parquet")
