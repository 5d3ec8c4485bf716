"""Runs that are killed at random moments, again and again, end with the weights of the undisturbed run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.end_to_end.campaigns.conftest import trials
from tests.end_to_end.campaigns.prepared import CHECKPOINT_EVERY, RUNS, VLLM, Finished
from tests.end_to_end.conftest import CommandLine, MakeCommandLine, Outcome
from tests.end_to_end.runs import Run, Server
from tests.end_to_end.test_repeatable import without_timing

KILLS = 4
"""Kills of one trial."""
GONE_S = 10
"""Seconds until no process of a killed run may be left."""
STARTING_S = 2.0
"""Weight of the time before the first stage, in which a kill may fall too."""
LONGEST = 12
"""Steps of the longest training."""
STOPPED = "mpo: stopped; the same command goes on from where it was"

Victim = Callable[[Run, random.Random], None]


def stage_processes(run: Run) -> list[psutil.Process]:
    """Processes of the stage at work: children of the run's fork server, which is the run's child."""
    try:
        return [process for child in psutil.Process(run.pid).children() for process in child.children()]
    except psutil.NoSuchProcess:
        return []


def run_alone(number: signal.Signals) -> Victim:
    return lambda run, chance: os.kill(run.pid, number)


def whole_group(number: signal.Signals) -> Victim:
    """As Ctrl-C does in a terminal, and ``timeout`` and batch systems with SIGTERM."""
    return lambda run, chance: os.killpg(run.pid, number)


def one_of_the_stage(run: Run, chance: random.Random) -> None:
    """One process of the stage at work, of a group any rank; as the kernel does when memory runs out."""
    while run.alive():
        found = stage_processes(run)
        if found:
            chance.choice(found).kill()
            return
        time.sleep(0.01)


def everything(run: Run, chance: random.Random) -> None:
    """The run and all that it started at once; as a machine that loses its power."""
    for process in run.members():
        process.kill()


KINDS: dict[str, tuple[Victim, bool]] = {
    "run killed": (run_alone(signal.SIGKILL), False),
    "stage's process killed": (one_of_the_stage, False),
    "everything killed": (everything, False),
    "run terminated": (run_alone(signal.SIGTERM), True),
    "group terminated": (whole_group(signal.SIGTERM), True),
    "run interrupted": (run_alone(signal.SIGINT), True),
    "group interrupted": (whole_group(signal.SIGINT), True),
}
"""Each way to end a run, and whether it is a request that the run answers."""


def metrics_of(outcome: Outcome) -> dict[str, list[dict[str, Any]]]:
    """Metrics of every round by file, without those that tell the time."""
    files = sorted(outcome.folder.glob("*metrics.jsonl"))
    return {file.name: without_timing([json.loads(line) for line in file.read_text().splitlines()]) for file in files}


class Disturbed:
    """A run whose cache lacks some stages, started and killed until it is finished."""

    def __init__(self, server: Server, finished: Finished, command_line: CommandLine, chance: random.Random) -> None:
        self.server, self.finished, self.command_line, self.chance = server, finished, command_line, chance
        names = [name for name, _, _ in finished.stages]
        # Once in four from nothing; else from somewhere between the first samples and the training.
        last = max(index for index, name in enumerate(names) if name.rpartition("/")[2] == "train")
        first = 0 if chance.random() < 0.25 else chance.randint(names.index("start/sft"), last)
        without = {name for name in names[first:] if not name.startswith("evaluate/start")}
        if chance.random() < 0.7:  # an evaluation is known by what went into it: it can be there before its policy
            without = {name for name in without if "evaluate" not in name}
        finished.copy(command_line.cache, without)

    def missing(self) -> list[tuple[str, float]]:
        """Stages that are not complete, with the seconds that each took."""
        home = self.command_line.cache
        return [
            (name, max(seconds, 0.3))
            for name, path, seconds in self.finished.stages
            if not (home / path.parent.name / path.name).exists()
        ]

    def moment(self) -> tuple[str, float, int]:
        """A stage, seconds after its start, evenly spread over the time that the run will take, and for a training
        also steps that must have been done, in two of five cases: its steps are a small part of its seconds."""
        candidates = [("", STARTING_S), *self.missing()]
        trainings = [name for name, _ in candidates if name.rpartition("/")[2] in ("sft", "train")]
        if trainings and self.chance.random() < 0.4:
            return self.chance.choice(trainings), self.chance.uniform(0, 0.1), self.chance.randint(1, LONGEST)
        name, seconds = self.chance.choices(candidates, [weight for _, weight in candidates])[0]
        return name, self.chance.uniform(0, seconds), 0

    def steps(self, stage: str) -> int:
        """Steps that the unfinished training ``stage`` has noted."""
        path = next((path for name, path, _ in self.finished.stages if name == stage), None)
        file = self.command_line.cache / "train" / f"{path.name}.work/metrics.jsonl" if path else None
        return file.read_bytes().count(b"\n") if file is not None and file.exists() else 0

    def kill(self, kind: str) -> tuple[bool, str]:
        """Start the run and end it; whether it was ended before it was finished, and what it told."""
        stage, seconds, steps = self.moment()
        end, polite = KINDS[kind]
        run = self.server.start(self.command_line, self.finished.arguments)
        begun, done = f"{stage}: started" if stage else "mpo  ", f"{stage}: done"
        while run.alive():
            lines = run.err.splitlines()
            if any(line.startswith(done) for line in lines) and steps:
                break
            if any(line.startswith(begun) for line in lines) and self.steps(stage) >= steps:
                break
            time.sleep(0.01)
        time.sleep(seconds)
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            end(run, self.chance)
        status = run.wait()
        run.wait_until_gone(GONE_S)
        lines = run.err.splitlines()
        explained = f"{kind}, {seconds:.2f} s into {stage or 'the start'}, status {status}:\n{run.err}"
        assert "Traceback" not in run.err and all(len(line) <= 400 for line in lines), explained
        if status == 0:
            return False, explained
        if polite:
            assert status == 143 and lines[-1] == STOPPED, explained
        elif end is one_of_the_stage:
            assert status > 0 and sum(line.startswith("mpo: error:") for line in lines) == 1, explained
        else:
            assert status == -signal.SIGKILL, explained
        return True, explained

    def lost_steps(self) -> int:
        """Optimizer steps that the killed run had done and the next one has to do again."""
        lost = 0
        for work in self.command_line.cache.glob("train/*.work"):
            if (work / "summary.json").exists() or not (work / "metrics.jsonl").exists():
                continue
            steps = [int(path.name.rpartition("-")[2]) for path in work.glob("checkpoints/step-*")]
            lost += (work / "metrics.jsonl").read_bytes().count(b"\n") - max(steps, default=0)
        return lost

    def check_finished(self) -> None:
        """The same command to its end gives what the undisturbed run gave."""
        run = self.server.start(self.command_line, self.finished.arguments)
        outcome, undisturbed = run.outcome(), self.finished.outcome
        assert outcome.code == 0, outcome.err
        assert outcome.weights == undisturbed.weights
        assert metrics_of(outcome) == metrics_of(undisturbed)
        assert outcome.result["evaluation"] == undisturbed.result["evaluation"]
        run.wait_until_gone(GONE_S)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", trials(25))
def test_killed_runs_end_with_the_same_weights(
    seed: int,
    server: Server,
    finished: dict[str, Finished],
    command_lines: MakeCommandLine,
    counts: Counter[str],
) -> None:
    disturb(seed, server, finished[list(RUNS)[seed % len(RUNS)]], command_lines, counts)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", trials(13))
def test_killed_runs_that_sample_with_vllm_do_too(
    seed: int,
    server: Server,
    finished: dict[str, Finished],
    command_lines: MakeCommandLine,
    counts: Counter[str],
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    disturb(seed, server, finished[VLLM], command_lines, counts)


def disturb(
    seed: int, server: Server, undisturbed: Finished, command_lines: MakeCommandLine, counts: Counter[str]
) -> None:
    """Kill copies of the run at moments that the seed chooses, and compare what the last attempt ends with."""
    chance = random.Random(seed)
    disturbed = Disturbed(server, undisturbed, command_lines(), chance)
    kills = 0
    while kills < KILLS:
        kind, before = chance.choice(list(KINDS)), disturbed.lost_steps()
        hit, explained = disturbed.kill(kind)
        if not hit:
            counts["too late"] += 1
            disturbed.check_finished()
            disturbed = Disturbed(server, undisturbed, command_lines(), chance)
            continue
        kills += 1
        counts["kills"] += 1
        counts[kind] += 1
        lost = disturbed.lost_steps()
        counts["steps lost"] += max(0, lost - before)  # a run that is killed before it resumes has lost nothing more
        assert lost <= 2 * CHECKPOINT_EVERY, explained  # those of an interval, and while its checkpoint is written
        if KINDS[kind][1]:
            assert lost <= before, explained
    disturbed.check_finished()
    counts["runs finished"] += 1
