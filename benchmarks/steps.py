"""Our training loop on the benchmarks' material: seconds per step, tokens, memory."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.material import HalfAndHalf, RandomSets
from benchmarks.measure import PeakMemory, resident
from mpo.config.schema import Precision, TrainConfig
from mpo.logprobs.reference import Reference, compute_reference
from mpo.losses import MPO
from mpo.policy.load import make_policy
from mpo.policy.shared_prefix import share_prefix
from mpo.track.profile import TRACE_FILE, read_profile
from mpo.train.engine import single_process_environment
from mpo.train.loop import train


def measured_steps(
    lm: PreTrainedModel,
    sets: RandomSets,
    responses: int,
    sets_a_step: int,
    **settings: Any,
) -> dict[str, Any]:
    """Train on ``sets`` with MPO and a precomputed reference; the first step warms up and does not count.

    Args:
        settings: fields of TrainConfig beside those that are fixed here; with ``profile`` the row has one too.
    """
    os.environ.update(single_process_environment())
    cuda = torch.cuda.is_available()
    if not share_prefix(lm):
        raise RuntimeError("this model does not share prompts")
    checkpointing, compile = (bool(settings.get(name, False)) for name in ("activation_checkpointing", "compile"))
    policy = make_policy(lm, checkpointing, compile=compile)
    policy.to("cuda" if cuda else "cpu")
    loaded = torch.cuda.memory_allocated() if cuda else resident()
    fixed = {"lr": 1e-5, "zero_stage": 0, "activation_checkpointing": False, "checkpoint_minutes": 0.0}
    config = TrainConfig(**(fixed | {"global_batch": sets_a_step, "precision": Precision.fp32} | settings))
    with tempfile.TemporaryDirectory() as folder:
        reference_folder = Path(folder) / "reference"
        reference_folder.mkdir()
        compute_reference(policy, sets, reference_folder, config.micro_batch, config.settled.micro_tokens)
        reference = Reference.load(reference_folder, sets)
        seconds: list[float] = []
        rows: list[dict[str, Any]] = []
        last = time.perf_counter()

        def on_step(row: dict[str, Any]) -> None:
            nonlocal last
            now = time.perf_counter()
            seconds.append(now - last)
            rows.append(row)
            last = time.perf_counter()

        with PeakMemory.watched() as memory:
            train(
                policy, MPO(beta=0.1), sets, HalfAndHalf(responses), range(len(sets)), reference, config, 0,
                Path(folder), on_step,
            )  # fmt: skip
        profile = {"profile": asdict(read_profile(Path(folder) / TRACE_FILE, rows))} if config.profile else {}
    return profile | {
        "seconds_a_step": statistics.median(seconds[1:]),
        "mean_seconds_a_step": statistics.fmean(seconds[1:]),
        "loaded_bytes": loaded,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else memory.peak,
        "tokens": round(statistics.mean(row["tokens_per_second"] * row["step_seconds"] for row in rows[1:])),
        "waiting_for_batches": statistics.mean(row["layout_share"] for row in rows[1:]),
        "precision": config.precision.name,
    }
