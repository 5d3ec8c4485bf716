"""Reference log-probs of every response token of ``train`` and ``heldout``."""

from __future__ import annotations

from pathlib import Path

from mpo.data.tokens import TokenizedSets
from mpo.logprobs.reference import compute_reference
from mpo.policy.device_trial import prepare_for
from mpo.policy.devices import join_group
from mpo.policy.load import check_positions, load_policy
from mpo.stages.context import StageContext
from mpo.stages.models import model_source
from mpo.stages.nodes import reference
from mpo.stages.summary import Summary
from mpo.train.sharding import on_device

MISMATCHED_SEED = 0
"""One set of mismatched pairs for all run seeds, so that their reference log-probs are reused."""


def run(context: StageContext[reference.Config, reference.Settings, reference.Inputs[Path]]) -> None:
    """Write ``train/`` and ``heldout/`` log-probs; every process of the group does its share."""
    config, settings = context.config, context.settings
    device = join_group()
    path, revision = model_source(context.inputs.policy)
    policy = load_policy(path, revision, config.precision, config.trust_remote_code, quantization=config.quantization)
    warn = context.warn if context.rank == 0 else None
    prepare_for(policy, device, config.compile, warn, settings.sequence_parallel)
    frozen = on_device(policy, device, settings.sequence_parallel)
    facts: dict[str, dict[str, int]] = {}
    progress = context.progress()
    for split in ("train", "heldout"):
        folder = context.inputs.prepare / split
        if not folder.exists():
            continue
        sets = TokenizedSets.load(folder)
        check_positions(policy, sets.max_tokens)
        out = context.output / split
        out.mkdir(exist_ok=True)
        compute_reference(
            frozen,
            sets,
            out,
            settings.micro_batch,
            settings.micro_tokens,
            context.rank,
            context.world_size,
            lambda done, total: progress.update(done, total, "sets") if context.rank == 0 else None,
            MISMATCHED_SEED if config.mismatched else None,
            context.warn,
        )
        facts[split] = {"sets": len(sets)}
    if context.rank == 0:
        progress.close()
        Summary(facts=facts).write(context.output)
