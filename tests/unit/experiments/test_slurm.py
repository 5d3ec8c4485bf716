"""Jobs through submitit, whose own local executor starts them as processes of this machine."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

import pytest

from mpo.errors import ConfigError
from mpo.experiments.cells import Cell
from mpo.experiments.slurm import run_on_slurm
from mpo.experiments.worker import LOG

pytest.importorskip("submitit")
WRONG = [Cell("", f"row {number}", "", 0, ("loss=dpo", f"loss.beta=-{number}")) for number in (1, 2)]


def test_a_parameter_that_submitit_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="launcher=slurm"):
        list(run_on_slurm(WRONG, tmp_path, {"partitoin": "x"}, 1, 2, cluster="local"))


@pytest.mark.slow  # each job imports everything anew
def test_jobs_end_with_their_outcome(tmp_path: Path) -> None:
    outcomes = list(run_on_slurm(WRONG, tmp_path, {"timeout_min": "5"}, 1, 2, cluster="local", look_s=0.1))
    assert sorted(cell.row for cell, _ in outcomes) == ["row 1", "row 2"]
    for cell, outcome in outcomes:
        assert outcome.error is not None and "loss.beta" in outcome.error and outcome.seconds > 0
        assert "loss.beta" in (tmp_path / cell.key / "run.log").read_text()


@pytest.mark.slow
def test_jobs_are_cancelled_when_the_command_stops(tmp_path: Path) -> None:
    own = (f"cache_dir={tmp_path}/cache", f"results={tmp_path}/results", "launcher.threads=1", "logger=none")
    cell = Cell("", "long", "", 0, (*own, "model.scratch.sft.max_steps=1000000"))
    jobs = run_on_slurm([cell], tmp_path, {"timeout_min": "5"}, 1, 1, cluster="local", look_s=0.1)
    seen = []

    def stop() -> None:
        while not (tmp_path / cell.key / LOG).exists():
            time.sleep(0.1)
        seen.extend(processes_that_name(tmp_path))
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        next(jobs)
    deadline = time.monotonic() + 10
    while processes_that_name(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert seen and not processes_that_name(tmp_path)


def processes_that_name(folder: Path) -> list[str]:
    """Process ids of this machine with the folder among their arguments."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in file.read_bytes():
                found.append(file.parent.name)
    return found
