"""A profile of a training's steps: what it holds, and that it changes nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mpo.track.profile import TRACE_FILE, Profile, read_profile
from mpo.track.trace_parts import (
    ATTENTION_BACKWARD,
    ATTENTION_FORWARD,
    COMMUNICATION,
    HEAD_BACKWARD,
    HEAD_FORWARD,
    LAYOUT,
    LOSS,
    OPTIMIZER,
    PRODUCTS,
    WAITING,
)
from tests.distributed.test_resume import TIMING
from tests.distributed.world import spawn, weights

OF_ALL = {ATTENTION_BACKWARD, ATTENTION_FORWARD, HEAD_BACKWARD, HEAD_FORWARD, LAYOUT, LOSS, OPTIMIZER, PRODUCTS,
          WAITING["cpu"]}  # fmt: skip


def job(out: Path, profile: bool, **more: Any) -> dict[str, Any]:
    config = {"micro_batch": 2, "global_batch": 5, "lr": 3e-3, "max_steps": 7, "epochs": 2, "checkpoint_every": 2}
    return {"out": str(out), "config": config | {"profile": profile} | more, "loss_fields": {"beta": 0.1}}


def rows(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMING} for line in lines]


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[part], second[part]) for part in first) and rows(one) == rows(other)


def profile(out: Path) -> Profile:
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return read_profile(out / TRACE_FILE, metrics)


@pytest.mark.parametrize(
    ("processes", "settings"),
    [(1, {"zero_stage": 0}), (1, {"zero_stage": 0, "micro_tokens": 18}), (2, {"zero_stage": 2, "precision": "bf16"})],
)
def test_a_profiled_training_gives_the_same_weights_and_metrics_bit_for_bit(
    tmp_path: Path, processes: int, settings: dict[str, Any]
) -> None:
    plain, profiled = tmp_path / "plain", tmp_path / "profiled"
    assert spawn([job(plain, False, **settings), job(profiled, True, **settings)], processes) == [0] * processes
    assert same(plain, profiled)
    assert not (plain / TRACE_FILE).exists()
    found = profile(profiled)
    assert found.steps == [3, 4, 5] and found.memory_bytes is not None and found.memory_bytes > 2**20
    assert found.shares.keys() >= OF_ALL | ({COMMUNICATION} if processes > 1 else set())
    assert sum(found.shares.values()) == pytest.approx(1)


def test_a_training_that_was_killed_goes_on_with_a_profile_or_without(tmp_path: Path) -> None:
    whole, before, after = tmp_path / "whole", tmp_path / "before", tmp_path / "after"
    assert spawn([job(whole, False)]) == [0]
    assert spawn([job(before, True) | {"kill_at": 4}]) == [-signal.SIGKILL]  # the checkpoint is that of step 2
    assert not (before / TRACE_FILE).exists()
    assert spawn([job(after, True) | {"kill_at": 6}]) == [-signal.SIGKILL]
    assert spawn([job(before, True), job(after, False)]) == [0]
    assert same(whole, before) and same(whole, after)
    assert profile(before).steps == [5, 6, 7]  # the process's own third to fifth
    assert profile(after).steps == [3, 4, 5]
