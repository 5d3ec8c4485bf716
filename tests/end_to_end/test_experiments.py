"""A table of its own from nothing to its page, with real runs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from mpo.experiments import __main__
from mpo.report.records import RESULT_FILE
from tests.end_to_end.conftest import CommandLine

COLUMNS = [
    {"metric": "true_reward", "temperature": 1.0, "label": "true reward"},
    {"metric": "win_rate", "temperature": 1.0, "judge": "testbed", "label": "win rate %", "times": 100},
]


@pytest.fixture
def command(mpo: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of experiments in the working directory, with one table at one scale."""
    folder = tmp_path / "experiments"
    (folder / "scales").mkdir(parents=True)
    (folder / "mine").mkdir()
    scale = {
        "title": "the smallest testbed",
        "overrides": [*mpo.smallest(), "evaluate=testbed_table", "logger=none", "launcher.threads=1"],
        "unit": ["seed={unit}"],
        "units": 2,
        "columns": COLUMNS,
    }
    (folder / "scales/tiny.yaml").write_text(yaml.safe_dump(scale))
    table = {
        "title": "Two losses",
        "paper": "Mine",
        "published": "mine",
        "rows": {"Start": None, "DPO": ["loss=dpo"], "MPO": ["loss=mpo"]},
        "compare": "MPO",
        "claims": ["MPO > DPO"],
    }
    (folder / "mine/experiment.yaml").write_text(yaml.safe_dump(table))
    (folder / "published.yaml").write_text("mine: {columns: [lc], theirs: {DPO: [10.5], MPO: [12]}}\n")
    monkeypatch.chdir(tmp_path)
    for name, value in mpo.variables().items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_a_table_is_run_shown_and_not_run_again(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parallel, serial = command / "parallel", command / "serial"
    assert __main__.main(["mine", "scale=tiny", "jobs=2", f"out={parallel}"]) == 0
    printed = capsys.readouterr().out
    assert "4 runs, 0 of them finished" in printed and "[4/4]" in printed and "left" in printed
    page = (parallel / "mine.md").read_text()
    assert "| DPO |" in page and "published LC %, theirs" in page and "10.5" in page
    assert "MPO > DPO: **" in page and "4 of 4 runs, 2 replications, seeds 0, 1" in page
    assert (parallel / "mine.png").stat().st_size > 5000

    results = {path: path.stat().st_mtime_ns for path in parallel.glob(f"runs/*/{RESULT_FILE}")}
    assert len(results) == 4
    assert __main__.main(["mine", "scale=tiny", f"out={parallel}"]) == 0
    assert "4 of them finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in results} == results

    # One run after another gives the same figures.
    assert __main__.main(["mine", "scale=tiny", "jobs=1", f"out={serial}"]) == 0
    assert (serial / "mine.csv").read_text() == (parallel / "mine.csv").read_text()
    rows = list(csv.DictReader((serial / "mine.csv").open()))
    assert {(row["row"], row["replication"]) for row in rows} == {
        (row, unit) for row in ("Start", "DPO", "MPO") for unit in ("0", "1")
    }
    assert {row["value"] for row in rows if row["row"] == "Start" and row["metric"] == "win rate %"} == {"50.0"}


def test_a_run_that_fails_is_named_and_the_others_go_on(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = command / "experiments/mine/experiment.yaml"
    table = yaml.safe_load(file.read_text())
    table["rows"]["DPO"] = ["loss=dpo", "loss.beta=-1"]
    file.write_text(yaml.safe_dump(table))
    assert __main__.main(["mine", "scale=tiny", "units=1", f"out={command / 'out'}"]) == 1
    printed = capsys.readouterr()
    assert "mpo: error: DPO · unit 0: loss.beta" in printed.err and "Traceback" not in printed.err
    page = (command / "out/mine.md").read_text()
    assert "1 of 2 runs" in page and "MPO > DPO: not measured" in page
    assert "1 runs are missing: DPO · unit 0" in printed.out
