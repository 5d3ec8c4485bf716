"""ZeRO-3 learns once in which order modules need their weights, by which it fetches them ahead, whatever passes mix."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from torch import distributed as dist

from tests.distributed.world import run_job, run_processes

STEPS = 6


def count_passes(jobs: list[dict[str, Any]], environment: dict[str, str]) -> None:
    """How many passes began with an order that was learned, and how many without."""
    os.environ |= environment
    torch.set_num_threads(1)
    began = PartitionedParameterCoordinator.reset_step
    counts = [0, 0]

    def counted(coordinator: Any) -> None:
        counts[coordinator.is_complete_trace()] += 1
        began(coordinator)

    PartitionedParameterCoordinator.reset_step = counted
    for job in jobs:
        counts[:] = [0, 0]
        run_job(job)
        Path(job["out"], f"passes-{environment['RANK']}.json").write_text(json.dumps(counts))
    dist.destroy_process_group()


def test_an_order_is_learned_once(tmp_path: Path) -> None:
    config = {"zero_stage": 3, "micro_batch": 4, "global_batch": 5, "lr": 3e-3, "warmup_ratio": 0.0, "epochs": 2}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {}, "kto": {"loss": "kto"}, "pieces": {"config": {"micro_tokens": 18}},
        "evaluated": {"heldout": 6, "config": {"evaluate_every": 1}},
    }  # fmt: skip
    jobs = [
        {"out": str(tmp_path / name), "loss_fields": {"beta": 0.1}}
        | more
        | {"config": config | {"max_steps": STEPS} | more.get("config", {})}
        for name, more in kinds.items()
    ]
    assert run_processes(count_passes, jobs, 2) == [0, 0]
    for name in kinds:
        for rank in (0, 1):
            without, learned = json.loads((tmp_path / name / f"passes-{rank}.json").read_text())
            assert without <= 4 and without + learned >= STEPS, name
            if name != "plain":
                assert learned >= 2 * STEPS - 4, name
