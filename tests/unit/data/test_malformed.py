"""Whatever is in a file, reading it ends soon, in sets and counted problems or in one line that says what is wrong."""

from __future__ import annotations

import contextlib
import io
import os
import time
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from mpo.cache.stage import File
from mpo.data import check
from mpo.data.store import read_stored_sets
from mpo.errors import DataError
from mpo.stages import data
from mpo.stages.context import StageContext
from mpo.stages.nodes import data as node
from mpo.stages.summary import Summary
from tests.unit.data.layout_rows import pairs
from tests.unit.data.malformed import COLUMNS, Malformed, malformed_file

SHORT = 200
LONG = int(os.environ.get("MPO_MALFORMED", "2000"))
BLOCK = 100
LONGEST_LINE = 400
SECONDS = 10
CONFIG = node.Config(heldout=0, max_skipped_share=0.9, needs_scores=True, contrasts=True)


def blocks() -> list[object]:
    """Seeds, a block a test, slow from ``SHORT`` on."""
    return [
        pytest.param(range(first, first + BLOCK), id=str(first), marks=[pytest.mark.slow] if first >= SHORT else [])
        for first in range(0, LONG, BLOCK)
    ]


def check_lines(text: str) -> None:
    for line in text.splitlines():
        assert len(line) <= LONGEST_LINE, line[:LONGEST_LINE]
        assert line.isprintable(), ascii(line)


def run_check(file: Malformed) -> tuple[int, str]:
    """The checker's exit status and all that it printed, as a terminal in UTF-8 gets it."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", newline="\n")
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        status = check.main([str(file.path), "--layout", file.layout])
    terminal.flush()
    assert isinstance(terminal.buffer, io.BytesIO)
    return status, terminal.buffer.getvalue().decode()


def counted(shown: str, label: str) -> int:
    line = next(line for line in shown.splitlines() if line.startswith(f"  {label} "))
    return int(line.split()[1].rstrip(":"))


def run_stage(file: Malformed, out: Path) -> Summary:
    out.mkdir()
    inputs: node.Inputs[Path] = node.Inputs(File(str(file.path)))
    data.run(StageContext("data", replace(CONFIG, layout=file.layout), node.Settings(), inputs, out))
    return Summary.read(out)


@pytest.mark.parametrize("seeds", blocks())
def test_every_malformed_file_is_read_or_refused(seeds: range, tmp_path: Path) -> None:
    for seed in seeds:
        file = malformed_file(seed, tmp_path)
        began = time.monotonic()
        try:
            status, shown = run_check(file)
            check_lines(shown)
            refused = "mpo: error:" in shown
            assert status == (2 if refused or counted(shown, "errors") else 0)
            if refused:
                assert shown.count("mpo: error:") == 1 and file.path.name in shown
            elif file.rows is not None:
                assert counted(shown, "sets") + counted(shown, "errors") >= file.rows
            try:
                summary = run_stage(file, tmp_path / f"out{seed}")
            except DataError as error:
                check_lines(str(error))
                assert file.path.name in error.where
            else:
                assert not refused
                stored = list(read_stored_sets(tmp_path / f"out{seed}" / "train.parquet"))
                assert len(stored) == summary.fact("sets", "train") > 0
                for line in summary.problems:
                    check_lines(line)
        except BaseException as error:
            error.add_note(f"seed {seed}, {file.path.name} as {file.layout}: {file.path.read_bytes()[:600]!r}")
            raise
        assert time.monotonic() - began < SECONDS, f"seed {seed}"


@pytest.mark.parametrize("number", range(len(COLUMNS)))
def test_a_column_that_nobody_reads_may_hold_anything(number: int, tmp_path: Path) -> None:
    rows = [pairs(index) for index in range(3)]
    table = pyarrow.Table.from_pylist(rows).append_column("made", COLUMNS[number](len(rows)))
    parquet.write_table(table, tmp_path / "pairs.parquet")
    status, shown = run_check(Malformed(tmp_path / "pairs.parquet", "auto", len(rows)))
    assert (status, counted(shown, "sets"), counted(shown, "warnings")) == (0, 3, 0), shown
