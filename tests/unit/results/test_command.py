from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
import yaml
from pyarrow import parquet

from mpo.config.paths import folder
from mpo.results import Results
from mpo.results.__main__ import main
from mpo.results.store import default_folder
from tests.unit.results.conftest import report

ROOT = Path(__file__).parents[3]


class Command:
    """``python -m mpo.results`` in this process, on a store."""

    def __init__(self, store: Results, capsys: pytest.CaptureFixture[str]) -> None:
        self.store, self.capsys = store, capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints, or for another status its error."""
        assert main([arguments[0], "--store", str(self.store.folder), *arguments[1:]]) == code
        out, err = self.capsys.readouterr()
        return err if code else out


@pytest.fixture
def command(store: Results, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(store, capsys)


def test_list_is_a_line_a_group_and_estimate(command: Command) -> None:
    lines = command("list").splitlines()
    assert lines[0].split() == ["group", "estimate", "mean", "unit", "seeds"]
    shown = [line.split("  ") for line in lines[1:5]]
    assert [row[0] for row in shown] == ["WMPO", "WMPO", "DPO", "DPO"]
    assert "lc_win_rate at T=1, judge testbed" in lines[2] and lines[1].endswith("3") and lines[3].endswith("2")
    assert "±" in lines[1]
    assert lines[5:] == ["note: micro-scale testbed"]
    one = command("list", "--where", "seed=2", "--metric", "true_reward").splitlines()
    assert len(one) == 3 and "1 (± over prompts)" in one[1]


def test_list_leaves_older_runs_and_earlier_rounds_out(command: Command) -> None:
    command.store.add(report("DPO", 0, 9.0, created="2026-02-01T00:00:00+00:00"))
    text = command("list")
    assert "note: older runs of the same configuration and seed that are left out: 1" in text


def test_conditions_that_nothing_fulfils_are_one_line(command: Command) -> None:
    assert "no run has this key; did you mean 'loss.beta'?" in command("list", "--where", "loss.betta=1", code=2)
    told = command("list", "--where", "loss.beta=0.3", "--where", "seed=9", code=2)
    assert told == "mpo: error: no result has loss.beta=0.3, seed=9; see python -m mpo.results list\n"
    assert "WMPO" in command("list", "--where", "train.lr=0.001,loss._target_=WMPO")
    assert "no result has" in command("list", "--temperature", "0.7", code=2)


def test_compare_says_differences_and_p_values(command: Command) -> None:
    text = command("compare", "loss._target_=WMPO", "loss._target_=DPO", "--metric", "true_reward")
    assert "true_reward at T=1 (of 10)" in text and "over 2 seeds: 0.550 ± 0.050" in text
    assert "paired t-test p = 0.058, permutation test p = 0.5 (all 4 sign patterns)" in text
    assert "seeds in both: 2, of 3 in A and 2 in B" in text


def test_exports_hold_every_estimate(command: Command, tmp_path: Path) -> None:
    def exported(name: str) -> bytes:
        path = tmp_path / f"out.{name}"
        command("export", "--format", name, "--out", str(path))
        return path.read_bytes()

    rows = list(csv.DictReader(io.StringIO(exported("csv").decode())))
    assert len(rows) == 10 and {row["name"] for row in rows} == {run.name for run in command.store.runs()}
    loaded = json.loads(exported("json"))
    assert loaded["schema"] == 1 and loaded["rows"][0]["config"]["loss"]["beta"] == 0.3
    assert loaded["rows"][0]["baselines"][0]["name"] == "starting policy"
    table = parquet.read_table(pyarrow.BufferReader(exported("parquet")))
    assert table["value"].to_pylist() == [float(row["value"]) for row in rows]
    latex = exported("latex").decode()
    assert latex.startswith("\\begin{tabular}{lrr}") and "\nWMPO & $" in latex
    assert "true\\_reward at T=1" in latex and "\\pm" in latex


def test_show_and_merge(command: Command, tmp_path: Path) -> None:
    text = command("show", "dpo-seed1")
    for part in ("commit      0123456789abcdef", "a made-up machine", "torch 2.13.0", '"beta": 0.3', "loss=dpo"):
        assert part in text, part
    other = Results.open(tmp_path / "other")
    other.add(report("DPO", 5))
    assert command("merge", str(other.folder)) == f"{other.folder}: 1 new, 0 already here\n"
    assert "there are no results" in command("merge", str(tmp_path / "absent"), code=2)


def test_damaged_files_are_said_and_counted(store: Results, capsys: pytest.CaptureFixture[str]) -> None:
    (store.folder / "bad.parquet").write_bytes(b"bad")
    assert main(["list", "--store", str(store.folder)]) == 0
    out, err = capsys.readouterr()
    assert "WMPO" in out and "bad.parquet: damaged" in err and "mpo: 1 file left out" in err


def test_the_default_store_is_the_one_that_runs_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written = yaml.safe_load((folder("conf") / "config.yaml").read_text())
    assert written["results"] == "${oc.env:MPO_RESULTS,${cache_dir}/results}"
    assert written["cache_dir"] == "${oc.env:MPO_CACHE,${oc.env:HOME,.}/.cache/mpo}"
    for name, value, expected in (
        ("HOME", "/h", "/h/.cache/mpo/results"), ("MPO_CACHE", "/c", "/c/results"), ("MPO_RESULTS", "/r", "/r"),
    ):  # fmt: skip
        for variable in {"HOME": ("MPO_CACHE", "MPO_RESULTS"), "MPO_CACHE": ("MPO_RESULTS",)}.get(name, ()):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv(name, value)
        assert str(default_folder()) == expected


def test_it_loads_no_torch_and_no_store_is_one_line(store: Results, tmp_path: Path) -> None:
    code = (
        "import sys; from mpo.results.__main__ import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'scipy', 'hydra'} & sys.modules.keys(); "
        "print(sorted(heavy)); sys.exit(code)"
    )
    environment = os.environ | {"MPO_RESULTS": str(store.folder)}
    done = subprocess.run(
        [sys.executable, "-c", code, "list"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]" and "WMPO" in done.stdout
    environment["MPO_RESULTS"] = str(tmp_path / "absent")
    done = subprocess.run(
        [sys.executable, "-c", code, "list"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "there are no results" in done.stderr
