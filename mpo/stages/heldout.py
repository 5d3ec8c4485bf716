"""Held-out sets with the policies to compare on them, for measures that forward a policy."""

from __future__ import annotations

from pathlib import Path

from mpo.cache.stage import File, Hub
from mpo.config.targets import build
from mpo.data.assignments import Assignments
from mpo.data.store import read_stored_sets
from mpo.data.tokens import TokenizedSets
from mpo.evaluate.heldout import HeldOut
from mpo.logprobs.reference import Reference
from mpo.logprobs.scoring import FrozenPolicy
from mpo.losses import Loss
from mpo.policy.device_trial import prepare_for
from mpo.policy.devices import join_group
from mpo.policy.load import load_policy
from mpo.stages.context import StageContext
from mpo.stages.models import model_source
from mpo.stages.nodes import evaluate
from mpo.train.sharding import on_device


def heldout_of(context: StageContext[evaluate.Config, evaluate.Settings, evaluate.Inputs[Path]]) -> HeldOut:
    """What the stage's measure may forward; a policy is loaded when it is asked for."""
    config, inputs, models = context.config, context.inputs, context.config.models
    assert models and inputs.prepare and inputs.sets and inputs.partition and inputs.policy and inputs.before
    sets = TokenizedSets.load(inputs.prepare / "heldout")
    policies: dict[str, Path | File | Hub] = {"after": inputs.policy, "before": inputs.before}

    def load(which: str) -> FrozenPolicy:
        path, revision = model_source(policies[which])
        policy = load_policy(path, revision, models.precision, models.trust_remote_code)
        device = join_group()
        together, warn = context.settings.sequence_parallel, context.warn if context.rank == 0 else None
        prepare_for(policy, device, models.compile, warn, together)
        return on_device(policy, device, together)

    return HeldOut(
        sets=sets,
        texts={one.id: one for one in read_stored_sets(inputs.sets / "heldout.parquet")},
        assignments=Assignments.load(inputs.partition / "heldout"),
        loss=build(models.loss, Loss, config.allow_targets, "loss"),  # type: ignore[type-abstract]
        reference=None if inputs.reference is None else Reference.load(inputs.reference / "heldout", sets),
        before_is_reference=models.before_is_reference,
        load=load,
        batch=context.settings.batch,
        micro_tokens=context.settings.micro_tokens,
    )
