"""One seed, one policy: in another cache, after kill -9 in the middle of the training, after a graceful shutdown."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpo.stages.summary import Summary
from tests.end_to_end.conftest import TIMEOUT_S, CommandLine, MakeCommandLine, Outcome
from tests.end_to_end.runs import Run

STEPS = 12
LONGER = ("train.max_steps=null", "train.epochs=6", "train.checkpoint_every=2", "evaluate.temperatures=[]")
TIMING = {
    *("memory_bytes", "memory_reserved_bytes"),
    *("tokens_per_second", "sets_per_second", "step_seconds", "layout_share"),
}


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


def wait_for_step(run: Run, cache: Path, step: int) -> None:
    """Return as soon as the training stage has written ``step`` lines of metrics."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for file in cache.glob("train/*.work/metrics.jsonl"):
            if file.read_bytes().count(b"\n") >= step:
                return
        assert run.alive(), run.outcome()
        time.sleep(0.005)
    raise AssertionError(f"no step {step} within {TIMEOUT_S} s")


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


def test_adapters_first_weights_follow_from_the_seed(untrained: CommandLine) -> None:
    """In interpreters of their own: what is forked from one that has imported everything draws the same anyway."""
    found = []
    for _ in range(2):
        outcome = untrained.testbed(*LONGER, "train/lora=adapters", fork=False)
        found.append(outcome.weights)
        shutil.rmtree((outcome.folder / "policy").resolve().parent)
    assert found[0] == found[1]


@pytest.mark.slow  # after a kill, trainings of two caches are compared as well
def test_two_caches_one_seed_give_the_same_bytes(first_run: Outcome, command_lines: MakeCommandLine) -> None:
    other = command_lines().testbed()
    assert set(other.planned.values()) == {"build"}
    assert other.weights == first_run.weights
    assert other.result["evaluation"] == first_run.result["evaluation"]
    assert without_timing(other.metrics) == without_timing(first_run.metrics)


def test_after_a_kill_the_same_command_ends_with_the_same_weights(undisturbed: Outcome, untrained: CommandLine) -> None:
    run = untrained.fork(*untrained.smallest(*LONGER))
    wait_for_step(run, untrained.cache, 5)
    os.kill(run.pid, signal.SIGKILL)  # the orchestrator alone: what it started must not train on
    run.wait()
    run.wait_until_gone(20)
    assert not list(untrained.cache.glob("train/*.work/policy"))  # it was in the middle
    check_resumed(untrained.testbed(*LONGER), undisturbed)


@pytest.mark.slow
def test_after_a_kill_of_the_whole_tree_too(undisturbed: Outcome, untrained: CommandLine) -> None:
    run = untrained.fork(*untrained.smallest(*LONGER))
    wait_for_step(run, untrained.cache, 7)
    for member in run.members():
        member.kill()
    run.wait()
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
    run = untrained.fork(*untrained.smallest(*LONGER, rare))
    wait_for_step(run, untrained.cache, 3)
    reach(run.pid, number)
    asked = time.monotonic()
    stopped = run.outcome()
    assert stopped.code == 143
    assert time.monotonic() - asked < 30
    assert stopped.err.splitlines()[-1] == "mpo: stopped; the same command goes on from where it was"
    assert "Traceback" not in stopped.err
    run.wait_until_gone(20)
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
