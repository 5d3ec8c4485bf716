"""Several processes load one model: the host has one copy of its weights, and no process ever holds them all."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from transformers import AutoModelForCausalLM, LlamaConfig

from mpo.config.training import Precision, TrainConfig
from mpo.policy.load import load_policy
from mpo.train.zero import deepspeed_config, init_process_group, spread
from tests.distributed.world import run_processes, tiny_policy

EVERY_S = 0.02
MMAP_THRESHOLD = -3
"""Of the C library's ``mallopt``."""


class Watch:
    """This process's own memory, in bytes, from time to time: that which no file backs."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(EVERY_S):
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
            (kibibytes,) = (line.split()[1] for line in lines if line.startswith("Anonymous:"))
            self.seen.append((time.monotonic(), 1024 * int(kibibytes)))


def load_and_spread(folders: list[Path], environment: dict[str, str]) -> None:
    """Of the tiny model, for all that is imported and set up on the way, then of the large one."""
    os.environ |= environment
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 1 << 20)  # freed tensors go back at once, and leave no holes
    torch.set_num_threads(1)
    init_process_group()
    zero = deepspeed_config(TrainConfig(precision=Precision.bf16), 3, 10**6, 64)
    marks = []
    with Watch() as watch:
        for folder in folders:
            policy = load_policy(str(folder), precision=Precision.bf16)
            dist.barrier()
            marks.append(time.monotonic())
            spread(policy, zero, torch.bfloat16)
            dist.barrier()
            time.sleep(3 * EVERY_S)
            marks.append(time.monotonic())
            held = sum(parameter.ds_tensor.numel() for parameter in policy.parameters())  # type: ignore[attr-defined]
    out = folders[-1] / f"seen-{dist.get_rank()}.json"
    out.write_text(json.dumps({"seen": watch.seen, "marks": marks, "shard": 2 * held}))
    dist.destroy_process_group()


def save_model(folder: Path, layers: int, hidden: int) -> int:
    """A model in bfloat16, in files of 20 MB each; returns the bytes of its weights."""
    config = LlamaConfig(
        vocab_size=4096, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=2, bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    lm.save_pretrained(folder, max_shard_size="20MB")
    return 2 * sum(parameter.numel() for parameter in lm.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "layers", "hidden"), [(2, 16, 1280), (8, 24, 1536)])
def test_the_host_holds_one_copy_and_each_process_its_shard(
    processes: int, layers: int, hidden: int, tmp_path: Path
) -> None:
    tiny_policy().base.save_pretrained(tmp_path / "tiny")
    size = save_model(tmp_path / "large", layers, hidden)
    assert run_processes(load_and_spread, [tmp_path / "tiny", tmp_path / "large"], processes) == [0] * processes
    found = [json.loads((tmp_path / "large" / f"seen-{rank}.json").read_text()) for rank in range(processes)]

    def at_most(one: dict[str, Any], begin: float, end: float) -> int:
        """How much more a process has had in a time than at its beginning."""
        before = max(each for each in one["seen"] if each[0] <= begin)[1]
        return max(0, *(each[1] - before for each in one["seen"] if begin < each[0] <= end))

    warm, loaded, over = (max(one["marks"][which] for one in found) for which in (1, 2, 3))
    loading = 1 + sum(at_most(one, warm, loaded) for one in found) / size  # the files' pages, which all share
    last = [max(one["seen"])[1] - max(each for each in one["seen"] if each[0] <= loaded)[1] for one in found]
    spreading, one_process = sum(last) / size, max(at_most(one, loaded, over) for one in found) / size
    print(f"{size / 2**20:.0f} MiB: loading {loading:.2f}, shards {spreading:.2f}, a process {one_process:.2f}")
    assert sum(one["shard"] for one in found) < 1.01 * size
    assert loading < 1.3
    assert 0.9 < spreading < 1.3  # what would be on the cards
    assert one_process < 1 / processes + 0.25  # and what messages between processes take
