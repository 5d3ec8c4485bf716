"""Our training loop on the benchmarks' material: seconds per step, tokens, memory."""

from __future__ import annotations

import os
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from benchmarks.material import HalfAndHalf, RandomSets
from benchmarks.measure import PeakMemory, held, now
from mpo.config.training import Precision, TrainConfig
from mpo.logprobs.reference import Reference, compute_reference
from mpo.losses import MPO
from mpo.policy.device_trial import prepare_for
from mpo.policy.devices import join_group
from mpo.policy.layers import compiles_fused
from mpo.policy.load import make_policy
from mpo.policy.shared_prefix import share_prefix
from mpo.track.profile import TRACE_FILE, read_profile
from mpo.track.step_profiler import RECORDED, SKIPPED
from mpo.train.checkpoint import CHECKPOINTS
from mpo.train.loop import train
from mpo.train.zero import single_process_environment

PROFILED = SKIPPED + RECORDED
"""Steps that do not count where some of them are profiled."""


def measured_steps(
    lm: PreTrainedModel, sets: RandomSets, responses: int, sets_a_step: int, warm_up: int = 1, **settings: Any
) -> dict[str, Any]:
    """Train on ``sets``, once each, with MPO and a precomputed reference, as a run of one process does.

    Args:
        warm_up: first steps that do not count.
        settings: fields of TrainConfig beside those that are fixed here; with ``profile`` the row has one too, and the
            steps that it takes do not count either.

    Raises:
        RuntimeError: the model, or the card's attention, does not share prompts: figures would be of another layout.
    """
    os.environ.update(single_process_environment())
    fixed: dict[str, Any] = {"lr": 1e-5, "zero_stage": 0, "activation_checkpointing": False, "checkpoint_minutes": 0.0}
    config = TrainConfig(**(fixed | {"global_batch": sets_a_step, "precision": Precision.fp32} | settings))
    own_attention = lm.config._attn_implementation
    calls = share_prefix(lm)
    policy = make_policy(lm, config.settled.activation_checkpointing)
    policy.own_attention, policy.attention_calls = own_attention, calls
    warnings: list[str] = []
    device = join_group()
    prepare_for(policy, device, config.compile, warnings.append)
    if not policy.shares_prefix:
        raise RuntimeError(f"prompts are not shared: {'; '.join(warnings) or 'this model does not'}")
    policy.to(device)
    loaded = held()
    warm_up = max(warm_up, PROFILED) if config.profile else warm_up
    with tempfile.TemporaryDirectory() as folder:
        reference_folder = Path(folder) / "reference"
        reference_folder.mkdir()
        compute_reference(policy, sets, reference_folder, config.micro_batch, config.settled.micro_tokens)
        reference = Reference.load(reference_folder, sets)
        seconds: list[float] = []
        rows: list[dict[str, Any]] = []
        last = now()

        def on_step(row: dict[str, Any]) -> None:
            nonlocal last
            at = now()
            seconds.append(at - last)
            rows.append(row)
            last = at

        with PeakMemory.watched() as memory:
            train(
                policy, MPO(beta=0.1), sets, HalfAndHalf(responses), range(len(sets)), reference, config, 0,
                Path(folder), on_step,
            )  # fmt: skip
        profile = {"profile": asdict(read_profile(Path(folder) / TRACE_FILE, rows))} if config.profile else {}
        kept = [_bytes(one) for one in (Path(folder) / CHECKPOINTS).glob("step-*")] if config.checkpoint_every else []
    counted, of_steps = seconds[warm_up:], rows[warm_up:]
    return profile | {
        "seconds_a_step": statistics.median(counted),
        "mean_seconds_a_step": statistics.fmean(counted),
        "steps": len(counted),
        "loaded_bytes": loaded,
        "peak_bytes": memory.peak,
        "reserved_bytes": memory.reserved,
        "checkpoint_bytes": max(kept, default=0),
        "tokens": round(statistics.mean(row["tokens_per_second"] * row["step_seconds"] for row in of_steps)),
        "waiting_for_batches": statistics.mean(row["layout_share"] for row in of_steps),
        "precision": config.precision.name,
        "compiled": compiles_fused(policy),
        "warnings": warnings,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
