from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from mpo.errors import DataError
from mpo.evaluate.records import Estimate
from mpo.results import SCHEMA_VERSION, Results, Run, run_key
from mpo.results.files import sealed
from tests.unit.results.conftest import PROMPTS, report

ROOT = Path(__file__).parents[3]
WRITER = """
import sys
from mpo.results import Results
from tests.unit.results.conftest import report
store = Results.open(sys.argv[1])
print("ready", flush=True)
for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    store.add(report(seed=seed))
"""


def writer(folder: Path, first: int, end: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(folder), str(first), str(end)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_run_comes_back_as_it_was(store: Results) -> None:
    made = report("WMPO", 0, 6.0)
    run = next(run for run in Results.open(store.folder).runs() if (run.name, run.seed) == ("wmpo-seed0", 0))
    assert run == Run.of(made)
    assert (run.config["loss"], run.versions) == (made.config["loss"], made.versions)
    assert "cache_dir" not in run.config
    rows = [row for row in store.rows() if row.run.id == run.id]
    assert tuple(row.estimate for row in rows) == made.evaluation
    values = store.prompt_values(run, "true_reward", 1.0)
    assert tuple(values) == PROMPTS and tuple(values.values()) == made.by_prompt[0].values
    assert store.prompt_values(run.id, "lc_win_rate", 1.0) == {}
    with pytest.raises(DataError, match="no run has the id 'nothing'"):
        store.prompt_values("nothing", "true_reward", 1.0)


def test_the_same_run_twice_is_one_and_another_outcome_is_another_run(tmp_path: Path) -> None:
    store = Results.open(tmp_path / "new" / "results")
    assert store.runs() == [] and store.rows() == []
    made = report()
    later = dataclasses.replace(made, created="2026-02-01T00:00:00+00:00")
    assert [store.add(made), store.add(later), len(store.runs())] == [True, False, 1]
    assert store.runs()[0].created == made.created
    assert store.add(report(reward=7.0, created="2026-03-01T00:00:00+00:00"))
    key = run_key(made.config)
    assert [run.created[:7] for run in store.find(key)] == ["2026-03", "2026-01"]
    assert store.find("another") == []


def test_runs_without_estimates_and_values_that_are_no_numbers_are_kept(tmp_path: Path) -> None:
    store = Results.open(tmp_path)
    store.add(dataclasses.replace(report(), evaluation=(), by_prompt=()))
    store.add(dataclasses.replace(report(seed=1), evaluation=(Estimate("win_rate", math.nan),), by_prompt=()))
    assert len(store.runs()) == 2
    (row,) = store.rows()
    assert math.isnan(row.value) and row.standard_error is None


def test_a_damaged_file_is_named_and_the_others_are_read(store: Results) -> None:
    files = sorted(store.folder.iterdir())
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    table = parquet.read_table(files[1])
    other = table.set_column(table.column_names.index("value"), "value", [pyarrow.array([1.0, 2.0])])
    parquet.write_table(other.replace_schema_metadata(table.schema.metadata), files[1])
    (store.folder / "other.parquet").write_bytes(b"text")
    (store.folder / "copy.parquet").write_bytes(files[2].read_bytes())
    (store.folder / f".{files[2].name}.1234").write_bytes(whole[:100])  # what a kill leaves
    again = Results.open(store.folder)
    assert len(again.runs()) == 3
    problems = "\n".join(again.problems)
    assert len(again.problems) == 4
    for path in (files[0], files[1], store.folder / "other.parquet"):
        assert f"{path}: damaged" in problems
    assert "a copy of" in problems
    for seed, reward in enumerate((6.0, 6.2, 6.4)):  # a run that is recorded again replaces its damaged file
        again.add(report("WMPO", seed, reward))
    for seed in (0, 1):
        again.add(report("DPO", seed, 5.5 + 0.1 * seed))
    assert len(again.runs()) == 5


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    both = [writer(tmp_path, 0, 8), writer(tmp_path, 4, 12)]
    assert [process.wait(60) for process in both] == [0, 0]
    store = Results.open(tmp_path)
    assert sorted(run.seed for run in store.runs()) == list(range(12)) and store.problems == []


def test_killed_while_it_writes_a_store_is_whole(tmp_path: Path) -> None:
    process = writer(tmp_path, 0, 100_000)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.parquet"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    store = Results.open(tmp_path)
    assert len(store.runs()) >= 5 and store.problems == []
    assert [run.seed for run in sorted(store.runs(), key=lambda run: run.seed)] == list(range(len(store.runs())))


def test_merging_neither_loses_nor_doubles(store: Results, tmp_path: Path) -> None:
    other = Results.open(tmp_path / "other")
    other.add(report("WMPO", 0, 6.0, created="2026-05-01T00:00:00+00:00"))  # the same run, recorded elsewhere too
    other.add(report("WMPO", 3, 6.3))
    (other.folder / "bad.parquet").write_bytes(b"bad")
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    merged = store.merge(Results.open(other.folder))
    assert (merged.new, merged.known, len(merged.problems)) == (1, 1, 1)
    assert len(store.runs()) == 6
    assert {name: (store.folder / name).read_bytes() for name in before} == before
    assert len(store.prompt_values(store.run("wmpo-seed3"), "true_reward", 1.0)) == 40
    again = store.merge(other)
    assert (again.new, again.known, len(store.runs())) == (0, 2, 6)


def test_a_newer_schema_is_refused_and_an_older_one_is_read(store: Results) -> None:
    path = next(store.folder.iterdir())
    table = parquet.read_table(path)
    parquet.write_table(sealed(table.drop_columns(["command", "baselines"]), version=0), path)
    again = Results.open(store.folder)
    assert len(again.runs()) == 5 and again.problems == []
    assert sum(run.command == "" for run in again.runs()) == 1
    more = table.append_column("more", pyarrow.nulls(len(table)))
    parquet.write_table(sealed(more, version=SCHEMA_VERSION + 1), path)
    with pytest.raises(DataError, match=f"in schema {SCHEMA_VERSION + 1}, and this version reads up to") as told:
        Results.open(store.folder).runs()
    assert "\n" not in str(told.value) and "install a newer mpo" in str(told.value)
    with pytest.raises(DataError, match="in schema"):
        Results.open(store.folder.parent / "mine").merge(Results.open(store.folder))


def test_a_run_is_named_by_its_id_the_beginning_of_it_or_its_name(store: Results) -> None:
    run = store.run("dpo-seed1")
    assert store.run(run.id) == store.run(run.id[:12]) == run
    with pytest.raises(DataError, match="no run has the id or name 'x'"):
        store.run("x")
    store.add(report("DPO", 1, 5.9))
    with pytest.raises(DataError, match="'dpo-seed1' is 2 runs"):
        store.run("dpo-seed1")
