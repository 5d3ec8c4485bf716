"""Evaluations during training leave no trace in it, and choose what is exported and when it ends."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mpo.config.training import Precision
from mpo.evaluate.heldout import Ranking, rank_heldout
from mpo.logprobs.reference import Reference
from mpo.losses import MPO
from mpo.policy.load import load_policy
from tests.distributed.test_resume import TIMING, checkpoints, flip
from tests.distributed.world import Marks, TokenSets, mistake, spawn, weights

HELDOUT = 7
EVERY = {"evaluate_every": 3}
BEST = EVERY | {"keep_best": "heldout/accuracy"}
HIGH = {"lr": 0.3}
"""With which the tiny policy gets worse again."""
WILD = {"lr": 1.0, "warmup_ratio": 0.0}


def job(out: Path, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    usual = {"zero_stage": 2, "micro_batch": 2, "global_batch": 5, "lr": 3e-3, "epochs": 2, "checkpoint_every": 4}
    return {"out": str(out), "config": usual | config, "heldout": HELDOUT, "loss_fields": {"beta": 0.1}} | more


def rows(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    untimed = TIMING | {"heldout/seconds"}
    return [{key: value for key, value in json.loads(line).items() if key not in untimed} for line in lines]


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[part], second[part]) for part in first)


def measured(out: Path) -> Ranking:
    """The exported policy's held-out ranking, by the measure that follows a training."""
    loss, sets = MPO(beta=0.1), TokenSets(HELDOUT, seed=1)
    policy = load_policy(str(out / "policy"), None, Precision.fp32, False)
    reference = Reference.load(out / "heldout", sets)
    return rank_heldout(policy, loss, sets, Marks(sets, loss), range(HELDOUT), reference, 4, 10**6, lambda done: None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``killed`` died in step 9 of 10 and was resumed, ``damaged`` too after its best checkpoint was."""
    folder = tmp_path_factory.mktemp("runs")
    assert spawn([job(folder / "killed", BEST | HIGH, kill_at=9, once="step-000008")]) == [-signal.SIGKILL]
    shutil.copytree(folder / "killed", folder / "damaged")
    flip(folder / "damaged" / "checkpoints" / "policy-000006" / "weights-0.pt")
    jobs = [
        job(folder / "plain", {}),
        job(folder / "evaluated", EVERY),
        job(folder / "pieces", EVERY | {"micro_tokens": 18}),
        job(folder / "kto", EVERY | {"max_steps": 3}, loss="kto"),
        job(folder / "simpo", EVERY | {"max_steps": 3}, loss="simpo", loss_fields={}),
        *(job(folder / name, BEST | HIGH) for name in ("best", "killed", "damaged")),
        job(folder / "early", BEST | HIGH | {"stop_after": 1}),
        job(folder / "goes-on", WILD),
        job(folder / "stops", WILD | {"stop_if_diverged": True}),
    ]
    assert spawn(jobs) == [2]
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes under ZeRO 3."""
    folder = tmp_path_factory.mktemp("pairs")
    jobs = [
        job(folder / "plain", {"zero_stage": 3}),
        job(folder / "evaluated", EVERY | {"zero_stage": 3}),
        job(folder / "best", BEST | HIGH | {"zero_stage": 3}),
    ]
    assert spawn(jobs, 2) == [0, 0]
    return folder


def assert_untouched(folder: Path) -> None:
    assert same(folder / "plain", folder / "evaluated")
    of_training = [
        {key: value for key, value in row.items() if not key.startswith("heldout/")}
        for row in rows(folder / "evaluated")
    ]
    assert of_training == rows(folder / "plain")


def assert_alike(one: Path, other: Path) -> None:
    for first, second in zip(rows(one), rows(other), strict=True):
        for key in (key for key in first if key.startswith("heldout/")):
            assert first[key] == pytest.approx(second[key], rel=1e-4), (key, first["step"])


def assert_best_exported(folder: Path) -> None:
    found, of_steps = summary(folder), rows(folder)
    evaluated = {row["step"]: row["heldout/accuracy"] for row in of_steps if "heldout/accuracy" in row}
    assert found["best_value"] == max(evaluated.values()) == evaluated[found["best_step"]]
    assert 0 < found["best_step"] < 10, "with this rate the last policy is not the best, else nothing is tested"
    assert measured(folder).accuracy.value == found["best_value"]


@pytest.mark.slow
def test_two_processes_under_zero_3_find_the_same(runs: Path, pairs: Path) -> None:
    assert_untouched(pairs)
    assert_alike(runs / "evaluated", pairs / "evaluated")
    assert_best_exported(pairs / "best")


def test_evaluation_changes_not_a_bit_of_the_weights(runs: Path) -> None:
    assert_untouched(runs)


def test_sets_in_pieces_are_evaluated_alike(runs: Path) -> None:
    assert_alike(runs / "evaluated", runs / "pieces")


def test_the_best_policy_is_exported(runs: Path) -> None:
    assert_best_exported(runs / "best")


def test_every_third_step_and_the_last_are_evaluated(runs: Path) -> None:
    evaluated = [row["step"] for row in rows(runs / "evaluated") if "heldout/loss" in row]
    assert evaluated == [3, 6, 9, 10]
    assert not any("heldout/loss" in row for row in rows(runs / "plain"))


def test_the_numbers_are_those_of_the_measure_after_training(runs: Path) -> None:
    found = measured(runs / "evaluated")
    last = rows(runs / "evaluated")[-1]
    assert last["heldout/accuracy"] == found.accuracy.value
    assert last["heldout/margin"] == pytest.approx(found.margin.value, rel=1e-3)
    assert last["heldout/kl"] == pytest.approx(found.kl.value, rel=1e-3)


def test_losses_with_and_without_reference_are_evaluated(runs: Path) -> None:
    for name, has_kl in (("kto", True), ("simpo", False)):
        last = rows(runs / name)[-1]
        assert math.isfinite(last["heldout/loss"]) and 0 <= last["heldout/accuracy"] <= 1
        assert ("heldout/kl" in last) == has_kl


def test_a_killed_run_has_each_evaluation_once_and_the_same_best(runs: Path) -> None:
    assert rows(runs / "killed") == rows(runs / "best")
    for key in ("best_step", "best_value", "steps", "diverged_at"):
        assert summary(runs / "killed")[key] == summary(runs / "best")[key]
    assert same(runs / "killed", runs / "best")
    assert f"policy-{summary(runs / 'best')['best_step']:06d}" in checkpoints(runs / "killed")


def test_a_damaged_best_checkpoint_is_made_again(runs: Path) -> None:
    (line,) = [line for line in (runs / "damaged" / "warnings.txt").read_text().splitlines() if "step-000008" in line]
    assert "checkpoint step-000008 is damaged (it needs policy-000006 (" in line
    assert same(runs / "damaged", runs / "best") and rows(runs / "damaged") == rows(runs / "best")


def test_training_ends_after_evaluations_without_improvement(runs: Path) -> None:
    found = summary(runs / "early")
    accuracies = [row["heldout/accuracy"] for row in rows(runs / "early") if "heldout/accuracy" in row]
    assert found["stopped_early"] and found["steps"] == len(rows(runs / "early")) < 10
    assert accuracies[-1] <= max(accuracies[:-1]) and found["best_step"] == found["steps"] - 3


def test_a_training_that_diverges_says_so_and_stops_if_asked(runs: Path) -> None:
    diverged = summary(runs / "goes-on")["diverged_at"]
    assert 0 < diverged < len(rows(runs / "goes-on"))
    (line,) = (runs / "goes-on" / "warnings.txt").read_text().splitlines()
    assert line.startswith(f"the training diverged at step {diverged}: ")
    assert f"the training diverged at step {diverged}: " in mistake(runs / "stops")
    assert len(rows(runs / "stops")) == diverged
