"""A sweep by the command: stopped and gone on with, and members beside each other."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import CommandLine, MakeCommandLine, Outcome

GRID = ("+sweep=beta_alpha", "loss.beta=0.1,0.3", "loss.alpha=0.01,0.1")


def estimates(sweep: Path) -> list[Any]:
    """What every member measured, in the order of the grid."""
    members = sorted(sweep.glob("*/result.json"))
    return [json.loads(path.read_text())["evaluation"] for path in members]


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_and_members_beside_each_other_measure_the_same(
    first_run: Outcome, mpo: CommandLine, command_lines: MakeCommandLine, tmp_path: Path
) -> None:
    stopped, beside = tmp_path / "stopped", tmp_path / "beside"
    members = mpo.smallest(*GRID, f"hydra.sweep.dir={stopped}")
    process, _ = mpo.start("-m", *members)
    while not (stopped / "0" / "result.json").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in err
    done = {path.parent.name: path.stat().st_mtime_ns for path in stopped.glob("*/result.json")}
    assert "0" in done and len(done) < 4
    outcome = mpo("-m", *members)
    assert {name: (stopped / name / "result.json").stat().st_mtime_ns for name in done} == done
    assert "sweep: the best is loss.beta=" in outcome.err and (stopped / "comparison.html").exists()

    other = command_lines()  # with a cache of its own
    outcome = other("-m", *other.smallest(*GRID, "launcher=joblib", f"hydra.sweep.dir={beside}"), fork=False)
    assert outcome.started.count("reference") == 1 and outcome.started.count("train") == 4
    assert estimates(stopped) == estimates(beside) and len(estimates(beside)) == 4
