"""One seed, one policy: in another cache, after kill -9 in the middle of the training, after a graceful shutdown."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mpo.stages.summary import Summary
from tests.end_to_end.conftest import TIMEOUT_S, CommandLine, MakeCommandLine, Outcome

STEPS = 12
LONGER = ("train.max_steps=null", "train.epochs=6", "train.checkpoint_every=2")
TIMING = {"memory_bytes", "tokens_per_second", "sets_per_second", "step_seconds", "layout_share"}


@pytest.fixture(scope="module")
def undisturbed(first_run: Outcome, command_lines: MakeCommandLine, shared_cache: Path) -> Outcome:
    """A training of twelve steps that nobody disturbs."""
    outcome = command_lines(shared_cache).testbed(*LONGER)
    assert len(outcome.metrics) == STEPS
    return outcome


@pytest.fixture
def untrained(undisturbed: Outcome, command_lines: MakeCommandLine, tmp_path: Path) -> CommandLine:
    """A command line on a cache that holds all that the undisturbed run used, but neither training nor evaluation."""
    cache = tmp_path / "cache"
    for row in undisturbed.result["stages"]:
        if row["name"] != "train" and not row["name"].startswith("evaluate"):
            stage = Path(row["path"])
            shutil.copytree(stage, cache / stage.parent.name / stage.name)
    return command_lines(cache)


def members(cache: Path) -> list[psutil.Process]:
    """Every process that was started for a run with this cache, however far down."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MPO_CACHE") == str(cache) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_for_step(process: subprocess.Popen[str], cache: Path, step: int) -> None:
    """Return as soon as the training stage has written ``step`` lines of metrics."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for file in cache.glob("train/*.work/metrics.jsonl"):
            if file.read_bytes().count(b"\n") >= step:
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError(f"no step {step} within {TIMEOUT_S} s")


def wait_until_gone(cache: Path, seconds: float) -> None:
    """Fail unless every process of the run ends in time."""
    deadline = time.monotonic() + seconds
    while members(cache) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [process.cmdline() for process in members(cache)] == []


def without_timing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def check_resumed(resumed: Outcome, undisturbed: Outcome) -> None:
    """The run went on from a checkpoint, did no step twice and ended with the same weights."""
    assert set(resumed.started) == {"train", *(name for name in resumed.planned if name.startswith("evaluate"))}
    summary = Summary.read((resumed.folder / "policy").resolve().parent)
    assert 0 < summary.fact("resumed_at") < STEPS
    assert [row["step"] for row in resumed.metrics] == list(range(1, STEPS + 1))
    assert without_timing(resumed.metrics) == without_timing(undisturbed.metrics)
    assert resumed.weights == undisturbed.weights


@pytest.mark.slow  # after a kill, trainings of two caches are compared as well
def test_two_caches_one_seed_give_the_same_bytes(first_run: Outcome, command_lines: MakeCommandLine) -> None:
    other = command_lines().testbed()
    assert set(other.planned.values()) == {"build"}
    assert other.weights == first_run.weights
    assert other.result["evaluation"] == first_run.result["evaluation"]
    assert without_timing(other.metrics) == without_timing(first_run.metrics)


def test_after_a_kill_the_same_command_ends_with_the_same_weights(undisturbed: Outcome, untrained: CommandLine) -> None:
    process, _ = untrained.start(*untrained.smallest(*LONGER))
    wait_for_step(process, untrained.cache, 5)
    process.send_signal(signal.SIGKILL)  # the orchestrator alone: what it started must not train on
    process.communicate(timeout=TIMEOUT_S)
    wait_until_gone(untrained.cache, 20)
    assert not list(untrained.cache.glob("train/*.work/policy"))  # it was in the middle
    check_resumed(untrained.testbed(*LONGER), undisturbed)


@pytest.mark.slow
def test_after_a_kill_of_the_whole_tree_too(undisturbed: Outcome, untrained: CommandLine) -> None:
    process, _ = untrained.start(*untrained.smallest(*LONGER))
    wait_for_step(process, untrained.cache, 7)
    for member in members(untrained.cache):
        member.kill()
    process.communicate(timeout=TIMEOUT_S)
    check_resumed(untrained.testbed(*LONGER), undisturbed)


def whole_group(leader: int, number: signal.Signals) -> None:
    """As Ctrl-C does in a terminal, and ``timeout`` and batch systems with SIGTERM."""
    os.killpg(leader, number)


@pytest.mark.parametrize(
    "reach, number",
    [
        (whole_group, signal.SIGTERM),
        pytest.param(whole_group, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(os.kill, signal.SIGTERM, marks=pytest.mark.slow),
    ],
    ids=["group terminated", "group interrupted", "run terminated"],
)
def test_asked_to_stop_it_stops_and_says_how_to_go_on(
    undisturbed: Outcome, untrained: CommandLine, reach: Callable[[int, signal.Signals], None], number: signal.Signals
) -> None:
    rare = "train.checkpoint_every=1000"  # what the run goes on from was written because it was asked to stop
    process, _ = untrained.start(*untrained.smallest(*LONGER, rare))
    wait_for_step(process, untrained.cache, 3)
    reach(process.pid, number)
    asked = time.monotonic()
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 143
    assert time.monotonic() - asked < 30
    assert err.splitlines()[-1] == "mpo: stopped; the same command goes on from where it was"
    assert "Traceback" not in err
    wait_until_gone(untrained.cache, 20)
    check_resumed(untrained.testbed(*LONGER), undisturbed)


def test_asked_to_stop_before_the_first_stage(mpo: CommandLine) -> None:
    process, _ = mpo.start(*mpo.smallest("seed=17"))
    assert process.stderr is not None
    assert process.stderr.readline().startswith("mpo  wmpo")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 143
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "mpo: stopped; the same command goes on from where it was"
