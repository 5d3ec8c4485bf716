"""Which stages in which order: a regime is a list of stages, composed from the configuration.

Every stage is known before the first one runs, so a plan can say what is cached, in every round.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mpo.cache.artifacts import Stage
from mpo.config.rules import NO_REFERENCE, TESTBED
from mpo.config.schema import (
    Regime,
    RunConfig,
)
from mpo.pipeline.graph import Graph, Policy, Round
from mpo.pipeline.stage_configs import (
    BASELINE_SEED,
    EVERYTHING,
    SFT_LOSS,
    allowed,
    data_stage,
    demonstrations_stage,
    evaluation_sample_stage,
    partition_config,
    prepare_stage,
    sample_stage,
    score_stage,
    train_stage,
    true_score_stage,
)
from mpo.stages.context import to_plain

if TYPE_CHECKING:
    from mpo.losses import Loss


def compose(config: RunConfig, loss: Loss) -> Graph:
    """The graph of a run; ``loss`` is the configured loss, for what it declares that it needs."""
    rounds = config.rounds if config.regime.name is Regime.iterative else 1
    data = data_stage(config, loss, rounds)
    start = _starting_policy(config, data)
    graph = Graph(data, start)
    newest = start
    for number in range(1, rounds + 1):
        prefix = f"round{number}/" if rounds > 1 else ""
        sets = _sets(config, data, newest, prefix, number, rounds)
        one = _round(config, loss, number, prefix, data, sets, start=start, policy=newest)
        graph.rounds.append(one)
        newest = Policy(stage=one.train)
    return graph


def _starting_policy(config: RunConfig, data: Stage) -> Policy:
    """The model named in the config, or one trained from scratch: random weights, tokenizer, supervised fine-tuning."""
    model = config.model
    if model.scratch is None:
        return Policy(path=model.path, revision=model.revision)
    scratch = model.scratch
    examples = data
    if config.data.source == TESTBED:
        examples = demonstrations_stage(config, "start/demonstrations")
    made = {"architecture": dict(model.architecture), "tokenizer": scratch.tokenizer, "seed": scratch.seed}
    if scratch.tokenizer != TESTBED:
        made["vocab_size"] = scratch.vocab_size
    init = Policy(Stage("start/init", "init", made, inputs={"sets": examples}))
    if config.regime.name is Regime.sft:
        return init
    prepare = prepare_stage(config, "start/", examples, init, flatten=scratch.responses)
    all_in_one = partition_config(config, EVERYTHING, 0, None)
    partition = Stage("start/partition", "partition", all_in_one, inputs={"prepare": prepare}, inline=True)
    train = train_stage(config, "start/sft", SFT_LOSS, scratch.sft, scratch.seed)
    train = init.attach(replace(train, inputs={"prepare": prepare, "partition": partition}))
    return Policy(stage=train, untrained=init)


def _sets(config: RunConfig, data: Stage, sampler: Policy, prefix: str, number: int, rounds: int) -> Stage:
    """Response sets with scores: the data's own, or sampled from ``sampler`` and scored."""
    from_policy = config.regime.name in (Regime.on_policy, Regime.iterative)
    testbed_sets = config.data.source == TESTBED and config.regime.name is Regime.off_policy
    if not (from_policy or testbed_sets):
        return data
    share = {"round": number, "rounds": rounds, "seed_rounds": config.data.split_seed, "prompts": None}
    splits = {"splits": ["train", "heldout"], **share}
    sample = sample_stage(config, f"{prefix}sample", config.sample, splits, sampler, data, config.seed + number - 1)
    return score_stage(f"{prefix}score", config, sample)


def _round(
    config: RunConfig, loss: Loss, number: int, prefix: str, data: Stage, sets: Stage, *, start: Policy, policy: Policy
) -> Round:
    """Train ``policy`` on ``sets`` against itself as reference, then compare with ``start``."""
    seed = config.seed + number - 1
    sft = config.regime.name is Regime.sft
    prepare = prepare_stage(config, prefix, sets, start, flatten=config.regime.responses if sft else None)
    inputs = {"prepare": prepare}
    slices = partition_config(config, config.partition, seed, loss)
    partition = Stage(f"{prefix}partition", "partition", slices, inputs=inputs, inline=True)
    reference = None
    reference_policy = policy
    if config.model.reference not in (None, NO_REFERENCE):
        reference_policy = Policy(path=config.model.reference)
    if loss.needs_reference:
        how = {
            "precision": to_plain(config.train.precision),
            "compile": config.train.compile,
            "mismatched": loss.needs_mismatched_kl,
            "trust_remote_code": config.model.trust_remote_code,
        }
        reference = reference_policy.attach(
            Stage(
                f"{prefix}reference",
                "reference",
                how,
                settings={"micro_batch": config.train.micro_batch, "micro_tokens": config.train.micro_tokens},
                inputs=inputs,
                resumable=True,
                distributed=True,
            )
        )
    train = train_stage(config, f"{prefix}train", config.loss, replace(config.train, lr=config.lr_of(number)), seed)
    train_inputs = {"prepare": prepare, "partition": partition}
    if reference is not None:
        train_inputs["reference"] = reference
    own_reference = reference is not None and reference_policy is policy
    train = replace(train, inputs=train_inputs, config={**train.config, "policy_is_reference": own_reference})
    train = policy.attach(train)
    return Round(prepare, partition, reference, train, _evaluate(config, prefix, data, train, start, policy, seed))


def _evaluate(
    config: RunConfig, prefix: str, data: Stage, train: Stage, start: Policy, before: Policy, seed: int
) -> Stage:
    """Held-out ranking against ``before``; in the testbed also samples, judged against ``start``'s."""
    slices: dict[str, Any] = {
        "loss": dict(config.loss),
        "before_is_reference": train.config["policy_is_reference"],
        "precision": to_plain(config.train.precision),
        "compile": config.train.compile,
        "allow_targets": allowed(config.loss, config),
        "trust_remote_code": config.model.trust_remote_code,
    }
    inputs = {name: train.inputs[name] for name in ("prepare", "partition", "reference") if name in train.inputs}
    inputs |= {"train": train, "sets": inputs["prepare"].inputs["sets"]}
    judged = config.data.source == TESTBED
    if not judged or config.regime.name is not Regime.sft:  # the testbed's demonstrations are all trained on
        slices |= {"temperatures": list(config.evaluate.temperatures), "seed": seed, "judged": judged}
        for temperature in config.evaluate.temperatures:
            for who, sampler, sampler_seed in (
                ("start", start, BASELINE_SEED),
                ("policy", Policy(stage=train), seed),
            ):
                name = f"{prefix if who == 'policy' else ''}evaluate/{who}@{temperature:g}"
                sample = evaluation_sample_stage(config, name, data, sampler, temperature, sampler_seed)
                inputs[f"{who}@{temperature:g}"] = true_score_stage(sample) if judged else sample
    settings = {"batch": config.evaluate.batch, "micro_tokens": config.train.micro_tokens}
    stage = Stage(f"{prefix}evaluate", "evaluate", slices, settings=settings, inputs=inputs)
    return before.attach(stage, "before")
