"""One measure of a trained policy: what it finds, as ``evaluation.json``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import write_json
from mpo.cache.stage import File, Hub
from mpo.config.targets import build
from mpo.data.assignments import Assignments
from mpo.data.store import read_stored_sets
from mpo.data.tokens import TokenizedSets
from mpo.evaluate.base import Evidence, Measure, Samples
from mpo.evaluate.heldout import HeldOut
from mpo.failures.user_code import user_code
from mpo.logprobs.reference import Reference
from mpo.losses import Loss
from mpo.plain import to_plain
from mpo.policy.devices import join_group
from mpo.policy.load import load_policy
from mpo.policy.module import PolicyModule
from mpo.stages.context import EVALUATION_FILE, StageContext
from mpo.stages.models import model_source
from mpo.stages.nodes import evaluate
from mpo.stages.summary import Summary
from mpo.types import ResponseSet

Context = StageContext[evaluate.Config, evaluate.Settings, evaluate.Inputs[Path]]


def run(context: Context) -> None:
    """Write estimates, distributions and a few samples.

    Raises:
        ConfigError: a measure of the user's own raised something.
    """
    config, inputs = context.config, context.inputs
    measure = build(config.measure, Measure, config.allow_targets, "evaluate.measures")  # type: ignore[type-abstract]
    samples = tuple(
        Samples(float(temperature), _heldout_sets(folder), _heldout_sets(inputs.policy_samples[temperature]))
        for temperature, folder in inputs.start_samples.items()
    )
    progress = context.progress()
    evidence = Evidence(samples, config.score, _heldout(context), config.seed, progress.update)
    with user_code(type(measure).__module__, type(measure).__name__, "evaluate.measures"):
        found = measure.measure(evidence)
    progress.close()
    write_json(context.output / EVALUATION_FILE, _finite(to_plain(found)))
    Summary(facts={"": {"estimates": len(found.estimates)}}).write(context.output)


def _heldout_sets(folder: Path) -> list[ResponseSet]:
    return list(read_stored_sets(folder / "heldout.parquet"))


def _heldout(context: Context) -> HeldOut | None:
    config, inputs, models = context.config, context.inputs, context.config.models
    if models is None or inputs.prepare is None or not (inputs.prepare / "heldout").exists():
        return None
    assert inputs.sets and inputs.partition and inputs.policy and inputs.before
    sets = TokenizedSets.load(inputs.prepare / "heldout")
    policies: dict[str, Path | File | Hub] = {"after": inputs.policy, "before": inputs.before}

    def load(which: str) -> PolicyModule:
        path, revision = model_source(policies[which])
        policy = load_policy(path, revision, models.precision, models.trust_remote_code, compile=models.compile)
        return policy.to(join_group())

    return HeldOut(
        sets=sets,
        texts={one.id: one for one in _heldout_sets(inputs.sets)},
        assignments=Assignments.load(inputs.partition / "heldout"),
        loss=build(models.loss, Loss, config.allow_targets, "loss"),  # type: ignore[type-abstract]
        reference=None if inputs.reference is None else Reference.load(inputs.reference / "heldout", sets),
        before_is_reference=models.before_is_reference,
        load=load,
        batch=context.settings.batch,
        micro_tokens=context.settings.micro_tokens,
    )


def _finite(value: Any) -> Any:
    """The same with None for what JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
