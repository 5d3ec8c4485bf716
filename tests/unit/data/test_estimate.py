"""What a plan says of a file before it is read: its beginning stands for the rest."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from mpo.data.estimate import SAMPLE, Sketch, sketch
from mpo.data.sources import SourceSpec


def row(i: int) -> dict[str, object]:
    return {"id": str(i), "prompt": "x" * 40, "responses": ["y" * 200, "z" * 400, "w"], "scores": [1, 2, 3]}


def sketch_of(path: Path, max_prompt_tokens: int = 20, max_tokens: int = 200) -> Sketch | None:
    return sketch(SourceSpec(str(path)), max_prompt_tokens, max_tokens)


@pytest.mark.parametrize("rows", [3, SAMPLE, 3 * SAMPLE])
@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_every_kind_of_file_is_told_from_its_beginning(tmp_path: Path, kind: str, rows: int) -> None:
    path, table = tmp_path / f"sets{kind}", [row(i) for i in range(rows)]
    if kind == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(table), path)
    elif kind == ".json":
        path.write_text(json.dumps(table, indent=1))
    else:
        lines = "".join(json.dumps(each) + "\n" for each in table).encode()
        path.write_bytes(gzip.compress(lines) if kind.endswith("gz") else lines)
    found = sketch_of(path)
    assert found is not None
    assert found.sets == pytest.approx(rows, rel=0.01)
    assert (found.responses, found.prompt_tokens, found.response_tokens) == (3, 10, 50)


def test_what_is_cut_or_left_out_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "sets.jsonl"
    long = {**row(9), "prompt": "x" * 400}
    path.write_text("".join(json.dumps(each) + "\n" for each in (row(0), long, row(1))) + "{\n")
    assert sketch_of(path, max_tokens=60) == Sketch(2, 3, 10, 33)  # 50, 50 in place of 100, and a quarter


def test_nothing_is_told_of_a_packed_file_that_ends_too_early(tmp_path: Path) -> None:
    path = tmp_path / "sets.jsonl.gz"
    lines = "".join(json.dumps({**row(i), "id": f"{i * 7919:x}"}) + "\n" for i in range(3000)).encode()
    path.write_bytes(gzip.compress(lines)[:-200])
    assert sketch_of(path) is None


@pytest.mark.parametrize("content", ["{\n", '{"prompt": "a", "responses": []}\n', '{"what": 1}\n'])
def test_nothing_is_told_of_a_file_that_cannot_be_used(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sets.jsonl"
    path.write_text(content)
    assert sketch_of(path) is None


def test_prompts_alone_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i:040}"}) + "\n" for i in range(5)))
    assert sketch_of(path) == Sketch(5, 0, 10, 0)


def test_tools_calls_and_reasoning_count(tmp_path: Path) -> None:
    calls = [{"name": "f" * 400}]
    row = {"prompt": "q" * 40, "responses": [{"text": "a" * 40, "score": 1, "reasoning": "r" * 400}]}
    more = {"prompt": "q" * 40, "tools": calls, "responses": [{"tool_calls": calls, "score": 1}]}
    path = tmp_path / "sets.jsonl"
    path.write_text(json.dumps(row) + "\n")
    found = sketch(SourceSpec(str(path)), 1000, 2000)
    assert found is not None and (found.prompt_tokens, found.response_tokens) == (10, 110)
    path.write_text(json.dumps(more) + "\n")
    found = sketch(SourceSpec(str(path)), 1000, 2000)
    assert found is not None and found.prompt_tokens > 100 and found.response_tokens > 100
