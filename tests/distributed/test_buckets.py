"""The buffers for gradients that DeepSpeed makes are those that the plan counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist

from mpo.config.training import Precision, TrainConfig
from mpo.layout.batch import collate
from mpo.planning.buckets import bucket_bytes
from mpo.planning.sizes import read_architecture
from mpo.train.engine import Engine
from mpo.train.zero import init_process_group
from tests.distributed.world import run_processes, tiny_policy
from tests.families import Tokens


def reduced(work: tuple[Path, str, int], environment: dict[str, str]) -> None:
    """One backward pass; leaves the bytes of the buffers that were there while gradients came."""
    os.environ |= environment
    torch.set_num_threads(1)
    out, precision, stage = work
    init_process_group()
    policy = tiny_policy(dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    shape = policy.base.config.to_dict()
    trained = sum(parameter.numel() for parameter in policy.parameters())
    engine = Engine(policy, TrainConfig(precision=Precision(precision), zero_stage=stage), 1)
    zero, seen = engine.deepspeed.optimizer, [0]

    def buffers(*_: object) -> None:
        found = [bucket.buffer for bucket in zero.ipg_buckets.values()] if hasattr(zero, "ipg_buckets") else []
        every = [tensor for each in found for tensor in (each if isinstance(each, list) else [each])]
        seen.append(sum(tensor.nbytes for tensor in every))

    for parameter in policy.parameters():  # called after DeepSpeed's own
        parameter.register_post_accumulate_grad_hook(buffers)
    engine.accumulate(False)
    batch = collate([Tokens("0", np.ones(2, dtype=np.int32), [np.ones(2, dtype=np.int32)])])
    engine.backward(engine(batch).token_logps_BKT.sum())
    if engine.rank == 0:
        out.write_text(json.dumps({"bytes": max(seen), "trained": trained, "shape": shape}, default=str))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "stages"), [("bf16", (1, 2, 3)), ("fp32", (0, 1, 2, 3))])
def test_deepspeeds_buffers_are_those_of_the_plan(precision: str, stages: tuple[int, ...], tmp_path: Path) -> None:
    for stage in stages:
        out = tmp_path / f"{stage}.json"
        assert run_processes(reduced, (out, precision, stage), 2) == [0, 0]
        found = json.loads(out.read_text())
        shape = read_architecture(found["shape"])
        assert shape.parameters == found["trained"]
        # All gradients fit the buffer, so that it is copied once, when activations are gone.
        planned = bucket_bytes(shape, Precision(precision), stage, 2, found["trained"], 10**9, 0)
        assert found["bytes"] == planned, stage
