"""Which stages in which order: a regime is data (``conf/regime``), from which a run's graph is composed.

Every stage is known before the first one runs, so a plan can say what is cached, in every round.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mpo.cache.stage import Nothing, Stage
from mpo.config.schema import RoundReference, RunConfig
from mpo.config.source import source_of
from mpo.data.sources.base import Source
from mpo.evaluate.base import errors_of
from mpo.evaluate.benchmark import Benchmark
from mpo.evaluate.policy_measure import PolicyMeasure
from mpo.pipeline.benchmarks import answer_stages
from mpo.pipeline.graph import Graph, Policy, Round
from mpo.pipeline.needs import build_measure, samples
from mpo.pipeline.policy_measures import measure_policy_stage
from mpo.pipeline.rules import NO_REFERENCE
from mpo.pipeline.sampling import evaluation_sample_stage, sample_stage
from mpo.pipeline.scoring import score_names, score_stage, training_rewards, true_score_stage
from mpo.pipeline.stage_configs import (
    BASELINE_SEED,
    EVERYTHING,
    SFT_LOSS,
    allowed,
    data_stage,
    demonstrations_node,
    demonstrations_stage,
    embed_stage,
    measure_stage,
    outside,
    partition_config,
    prepare_stage,
    thought_marks,
    tokenizer,
    train_stage,
)
from mpo.score.base import scorer_name
from mpo.stages.nodes import evaluate, init, partition, reference, train
from mpo.types import OWN_SCORE

if TYPE_CHECKING:
    from mpo.losses import Loss


def compose(config: RunConfig, loss: Loss) -> Graph:
    """The graph of a run; ``loss`` is the configured loss, for what it declares that it needs."""
    source = source_of(config.data, config.allow_targets)
    has_demonstrations = source.read_demonstrations() is not None
    if has_demonstrations and config.regime.imitate is not None and not config.regime.samples:
        data = demonstrations_stage(config, source, "data")
    else:
        data = data_stage(config, source, loss)
    start = _starting_policy(config, source, data)
    graph = Graph(data, start)
    newest = start
    for number in range(1, config.rounds + 1):
        before = graph.rounds[-1].train if graph.rounds and config.regime.carry_optimizer else None
        one = _round(config, source, loss, number, data, start=start, policy=newest, state=before)
        graph.rounds.append(one)
        newest = Policy(one.train)
    return graph


def _starting_policy(config: RunConfig, source: Source, data: Stage) -> Policy:
    """The model named in the config, or one trained from scratch: random weights, tokenizer, supervised fine-tuning."""
    model, scratch = config.model, config.model.scratch
    if scratch is None:
        assert model.path is not None
        return Policy(outside(model.path, model.revision))
    examples = data
    if source.read_demonstrations() is not None:
        examples = demonstrations_stage(config, source, "start/demonstrations")
    made = init.Config(dict(model.architecture), scratch.seed, vocab_size=scratch.vocab_size)
    if scratch.tokenizer == "source":
        node = demonstrations_node(config, source)
        made = replace(made, vocab_size=None, source=node, allow_targets=allowed(node, config))
    untrained = init.TASK.stage("start/init", made, Nothing(), init.Inputs(examples))
    if config.regime.imitate is not None and not config.regime.samples:
        return Policy(untrained)
    prepare = prepare_stage(config, "start/", examples, Policy(untrained), OWN_SCORE, flatten=scratch.responses)
    all_in_one = partition_config(config, EVERYTHING, 0, None)
    bins = partition.TASK.stage("start/partition", all_in_one, Nothing(), partition.Inputs(prepare))
    inputs = train.Inputs(prepare, bins, untrained, tokenizer=tokenizer(config))
    return Policy(train_stage(config, "start/sft", SFT_LOSS, scratch.sft, scratch.seed, inputs), untrained)


def _round(
    config: RunConfig,
    source: Source,
    loss: Loss,
    number: int,
    data: Stage,
    *,
    start: Policy,
    policy: Policy,
    state: Stage | None,
) -> Round:
    """Train ``policy`` on response sets, with the optimizer of the training ``state`` if there is one, then compare it
    with ``start``."""
    prefix = f"round{number}/" if config.rounds > 1 else ""
    seed = config.seed + number - 1
    drawn, sets = [], data
    if samples(config):
        share = (number, config.rounds)
        sampled = sample_stage(
            config, f"{prefix}sample", config.sample, policy, data, seed, splits=["train", "heldout"], share=share
        )
        sets = score_stage(f"{prefix}score", config, source, sampled)
        drawn = [sampled, sets]
    names = score_names(config, source)
    prepare = prepare_stage(config, prefix, sets, start, names[0], config.regime.imitate, thought_marks(config))
    slices = partition_config(config, config.partition, seed, loss, names)
    sorted_by = partition.Inputs(prepare, embed_stage(config, prefix, sets))
    bins = partition.TASK.stage(f"{prefix}partition", slices, Nothing(), sorted_by)
    frozen = start if config.regime.reference is RoundReference.starting else policy
    if config.model.reference not in (None, NO_REFERENCE):
        frozen = Policy(outside(str(config.model.reference)))
    logps = _reference(config, loss, prefix, prepare, frozen, policy) if loss.needs_reference else None
    from_reference = logps is not None and frozen is policy
    how = replace(config.train, lr=config.lr_of(number))
    rewards = training_rewards(config, source)
    answered = None if rewards is None else sets
    inputs = train.Inputs(prepare, bins, policy.model, logps, tokenizer(config), state, answered)
    keep = config.regime.carry_optimizer and number < config.rounds
    trained = train_stage(
        config, f"{prefix}train", config.loss_of(number), how, seed, inputs, from_reference, keep, rewards
    )
    models = evaluate.Models(
        config.loss_of(number), config.train.precision, config.train.compile, config.model.trust_remote_code,
        from_reference,
    )  # fmt: skip
    ranked = evaluate.Inputs(
        policy=trained, before=policy.model, sets=sets, prepare=prepare, partition=bins, reference=logps
    )
    measures = _measures(config, source, prefix, data, start, trained, seed, ranked, models)
    return Round(drawn, prepare, bins, logps, trained, measures)


def _reference(config: RunConfig, loss: Loss, prefix: str, prepare: Stage, frozen: Policy, policy: Policy) -> Stage:
    lora, memory = config.train.lora, config.train.settled
    held_alike = lora is not None and frozen is policy  # else the two would differ by what 4 bits cost
    return reference.TASK.stage(
        f"{prefix}reference",
        reference.Config(
            config.train.precision,
            config.train.compile,
            loss.needs_mismatched_kl,
            config.model.trust_remote_code,
            lora.quantization if lora is not None and held_alike else None,
        ),
        reference.Settings(config.train.micro_batch, memory.row_tokens, memory.sequence_parallel),
        reference.Inputs(prepare, frozen.model),
    )


def measures_left_out(config: RunConfig, source: Source) -> dict[str, str]:
    """Configured measures that this data cannot give, and why."""
    demonstrations = config.regime.imitate is not None and not config.regime.samples
    has_prompts = not demonstrations or source.read_demonstrations() is None
    reasons = {}
    for name in config.evaluate.measures:
        measure = build_measure(config, name)
        if measure.needs_truth and source.true_scorer is None:
            reasons[name] = "the data knows no true rewards"
        elif measure.needs_samples and not has_prompts:
            reasons[name] = "there are no held-out prompts"
    return reasons


def _measures(
    config: RunConfig,
    source: Source,
    prefix: str,
    data: Stage,
    start: Policy,
    trained: Stage,
    seed: int,
    ranked: evaluate.Inputs[Stage],
    models: evaluate.Models,
) -> list[Stage]:
    """A stage for each measure that is not left out, with what it needs."""
    left_out = measures_left_out(config, source)
    stages = []
    for name in config.evaluate.measures:
        if name in left_out:
            continue
        measure = build_measure(config, name)
        inputs: evaluate.Inputs[Stage] = ranked if measure.needs_models else evaluate.Inputs()
        if measure.needs_samples:
            before, after = (
                {
                    f"{temperature:g}": _samples(config, source, f"{own}evaluate/{who}", data, policy, temperature, by)
                    for temperature in config.evaluate.temperatures
                }
                for who, own, policy, by in (
                    ("start", "", start, BASELINE_SEED),
                    ("policy", prefix, Policy(trained), seed),
                )
            )
            inputs = replace(inputs, start_samples=before, policy_samples=after)
        if isinstance(measure, Benchmark):
            with errors_of(f"evaluate.measures.{name}"):
                asked = f"{prefix}evaluate/{name}/answers"
                inputs = replace(inputs, answers=answer_stages(config, asked, data, Policy(trained), measure))
                if measure.against_start:
                    asked = f"evaluate/{name}/start_answers"
                    inputs = replace(inputs, start_answers=answer_stages(config, asked, data, start, measure))
        if isinstance(measure, PolicyMeasure):
            asked = f"evaluate/{name}"
            of_start, of_policy = (
                measure_policy_stage(config, stage_name, name, measure, policy)
                for stage_name, policy in ((f"{asked}/start", start), (f"{prefix}{asked}/policy", Policy(trained)))
            )
            inputs = replace(inputs, start_results=of_start, policy_results=of_policy)
        used = models if measure.needs_models else None
        stage_name = f"{prefix}evaluate/{name}"
        truth = scorer_name(source.true_scorer) if measure.needs_samples and source.true_scorer else None
        stages.append(measure_stage(config, stage_name, name, measure, seed, inputs, truth, used))
    return stages


def _samples(
    config: RunConfig, source: Source, name: str, data: Stage, policy: Policy, temperature: float, seed: int
) -> Stage:
    """Responses to held-out prompts, with their true rewards where the data knows them."""
    drawn = evaluation_sample_stage(config, f"{name}@{temperature:g}", data, policy, temperature, seed)
    return drawn if source.true_scorer is None else true_score_stage(config, source.true_scorer, drawn)
