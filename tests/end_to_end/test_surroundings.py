"""A run whose disk fills up, whose processes are killed, whose reader goes away."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import fill
from tests.end_to_end.conftest import TIMEOUT_S, CommandLine, MakeCommandLine, Outcome


@pytest.mark.slow
def test_a_disk_that_another_program_fills_up(
    first_run: Outcome, command_lines: MakeCommandLine, small_disk: Callable[[int], Path]
) -> None:
    """One line says so, and with room again the same command ends as if nothing had happened."""
    disk = small_disk(65536)
    for row in first_run.result["stages"]:
        stage = Path(row["path"])
        if stage.parent.name not in ("train", "evaluate") or row["name"] == "start/sft":
            shutil.copytree(stage, disk / "cache" / stage.parent.name / stage.name)
    mpo = command_lines(disk / "cache")

    def fill_in_the_middle() -> None:
        while not list(disk.glob("cache/train/*.work")):
            time.sleep(0.01)
        fill(disk)

    threading.Thread(target=fill_in_the_middle, daemon=True).start()
    full = mpo.testbed("train.checkpoint_every=1", code=2)
    assert "Traceback" not in full.out + full.err
    assert full.mistakes == [full.err.splitlines()[-1]]
    assert str(disk / "cache") in full.mistakes[0] and "the disk is full; make room there" in full.mistakes[0]
    (disk / "fill").unlink()
    assert mpo.testbed("train.checkpoint_every=1").weights == first_run.weights


def test_a_process_that_the_kernel_kills(first_run: Outcome, mpo: CommandLine) -> None:
    run = mpo.fork(*mpo.smallest("loss=dpo", "train.max_steps=null", "train.epochs=300"))
    wait_for = time.monotonic() + TIMEOUT_S
    while not list(mpo.cache.glob("train/*.work/metrics.jsonl")) and time.monotonic() < wait_for:
        assert run.alive(), run.outcome()
        time.sleep(0.05)
    stages = [one for child in psutil.Process(run.pid).children() for one in child.children()]
    assert len(stages) == 1
    stages[0].kill()
    outcome = run.outcome()
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    line = outcome.err.splitlines()[-1]
    assert line.startswith("mpo: error: train: its process was killed by signal 9 (SIGKILL), perhaps out of memory")
    shutil.rmtree(next(mpo.cache.glob("train/*.work")))


@pytest.mark.slow
def test_a_run_outlives_its_reader(first_run: Outcome, mpo: CommandLine) -> None:
    """As with ``2>&1 | head -1``: its results lie in its folder."""
    process, folder = mpo.start(*mpo.smallest())
    assert process.stdout is not None and process.stderr is not None
    assert process.stderr.readline().startswith("mpo  wmpo")
    process.stderr.close()
    process.stdout.close()
    assert process.wait(TIMEOUT_S) == 0
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_below_nohup_a_closed_terminal_does_not_stop_it(first_run: Outcome, mpo: CommandLine) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which the command inherits
    try:
        process, _ = mpo.start(*mpo.smallest("seed=29", "train.max_steps=1"))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.stderr is not None
    while ": started" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
