"""ZeRO 3 with a second copy of the weights in shards within each machine trains as it does without, from the other's
checkpoint too."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from deepspeed.utils import groups
from torch import distributed as dist

from tests.distributed.world import curve, run_job, run_processes, weights

CONFIG = {
    "zero_stage": 3, "micro_batch": 2, "global_batch": 8, "lr": 3e-3, "warmup_ratio": 0.0, "epochs": 2, "max_steps": 6,
    "checkpoint_every": 3,
}  # fmt: skip


def trained_both_ways(work: tuple[Path, str], environment: dict[str, str]) -> None:
    """Without and with, in the given precision, and from checkpoints where there are any; leaves the ranks with which
    this process gathers a second copy."""
    os.environ |= environment
    torch.set_num_threads(1)
    folder, precision = work
    for name, hpz in (("plain", False), ("second", True)):
        config = CONFIG | {"precision": precision, "zero_hpz": hpz}
        run_job({"out": str(folder / name), "loss_fields": {"beta": 0.1}, "config": config})
        group = groups._get_zero_param_intra_parallel_group()
        ranks = None if group is None else dist.get_process_group_ranks(group)
        (folder / name / f"ranks-{environment['RANK']}.json").write_text(json.dumps(ranks))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_second_copy_within_machines_gives_the_same_curve(precision: str, tmp_path: Path) -> None:
    """Four processes as two machines of two, on one."""
    assert run_processes(trained_both_ways, (tmp_path, precision), 4, machines=2) == [0] * 4
    plain, second = tmp_path / "plain", tmp_path / "second"
    ranks = [[json.loads((out / f"ranks-{rank}.json").read_text()) for rank in range(4)] for out in (plain, second)]
    assert ranks == [[None] * 4, [[0, 1], [0, 1], [2, 3], [2, 3]]]
    losses = curve(second)
    assert losses == curve(plain) and len(losses) == 6 and len(set(losses)) == 6
    first, then = weights(plain), weights(second)
    assert first.keys() == then.keys() and all(torch.equal(first[name], then[name]) for name in first)

    # From each other's checkpoint in the middle.
    resumed = tmp_path / "resumed"
    for name, other in (("plain", second), ("second", plain)):
        shutil.copytree(other / "checkpoints" / "step-000003", resumed / name / "checkpoints" / "step-000003")
    assert run_processes(trained_both_ways, (resumed, precision), 4, machines=2) == [0] * 4
    for name in ("plain", "second"):
        assert json.loads((resumed / name / "summary.json").read_text())["resumed_at"] == 3
        assert curve(resumed / name) == losses
        found = weights(resumed / name)
        assert all(torch.equal(first[part], found[part]) for part in first)
