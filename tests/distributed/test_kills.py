"""Trainings that are killed at random moments, many while a checkpoint is being written, lose nothing but time."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mpo.cache.checksums import check_file, read_sealed
from tests.distributed.test_resume import job
from tests.distributed.world import spawn, start, weights

PROCESSES = 2
DELAY_S = 0.01
"""A kill comes so long after a checkpoint's beginning at most: about as long as its writing takes."""
START_S = 3.0
"""About how long a training takes to its first step."""
CLOCK = {"zero_stage": 3, "precision": "bf16", "checkpoint_every": 0, "checkpoint_minutes": 1e-6}
BEST = {"zero_stage": 2, "checkpoint_every": 3, "evaluate_every": 2, "keep_best": "heldout/margin"}


def training(out: Path, config: dict[str, Any], epochs: int) -> dict[str, Any]:
    return job(out, config={"lr": 3e-4, "epochs": epochs, **config}, **({"heldout": 5} if config is BEST else {}))


def complete(out: Path) -> list[int]:
    """Steps of the checkpoints; every folder that looks complete is whole."""
    folders = [one for one in sorted((out / "checkpoints").glob("*")) if not one.name.startswith("tmp-")]
    for folder in folders:
        for name, checksum in read_sealed(folder / "state.json")["files"].items():
            check_file(folder / name, checksum)
    return [int(folder.name.removeprefix("step-")) for folder in folders if folder.name.startswith("step-")]


def unfinished(out: Path) -> set[str]:
    return {path.name for path in (out / "checkpoints").glob("tmp-*")}


def killed(one: dict[str, Any], most: int, chance: random.Random) -> bool:
    """Start a training and kill all its processes at some moment: before its first step, or while a checkpoint is being
    written, at most so many steps later; whether that came before its end."""
    out, further = Path(one["out"]), chance.randint(0, most)
    wanted = max(complete(out), default=0) + further
    members = start([one], PROCESSES)
    while further and any(member.is_alive() for member in members):
        steps = [int(path.name.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*")]
        if max(steps, default=0) >= wanted and unfinished(out):
            break
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, DELAY_S if further else START_S))
    chance.shuffle(members)
    for member in members:
        member.kill()
        time.sleep(chance.choice([0, DELAY_S]))  # the others notice, or they don't
    for member in members:
        member.join()
    return any(member.exitcode for member in members)


@pytest.mark.parametrize(
    "config, epochs, most, kills",
    [
        pytest.param(CLOCK, 2, 3, 3, id="few"),
        pytest.param(CLOCK, 6, 8, 18, id="clock", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param(BEST, 6, 8, 12, id="best", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_trainings_end_with_the_same_weights(
    tmp_path: Path, config: dict[str, Any], epochs: int, most: int, kills: int
) -> None:
    chance, outs = random.Random(kills), [tmp_path / "0"]
    while_writing = 0
    while kills > 0:
        before = complete(outs[-1])
        if killed(training(outs[-1], config, epochs), most, chance):
            kills -= 1
            while_writing += bool(unfinished(outs[-1]))
            after = complete(outs[-1])
            assert len(after) >= min(len(before), 2) and max(after, default=0) >= max(before, default=0)
        else:
            outs.append(tmp_path / str(len(outs)))
    assert spawn([training(out, config, epochs) for out in (tmp_path / "whole", outs[-1])], PROCESSES) == [0, 0]
    expected = weights(tmp_path / "whole")
    for out in outs:
        assert all(torch.equal(expected[name], found) for name, found in weights(out).items())
        assert not unfinished(out) and not (out / "warnings.txt").exists()
    print(f"{while_writing} kills while a checkpoint was being written, {len(outs)} trainings")
    assert while_writing > 0
