"""Which stages in which order: a regime is a list of stages, composed from the configuration.

Every stage is known before the first one runs, so a plan can say what is cached, in every round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.artifacts import Stage, Store
from mpo.config.files import redacted_name
from mpo.config.rules import NO_REFERENCE, TESTBED
from mpo.config.schema import (
    DataConfig,
    Regime,
    RunConfig,
    SampleConfig,
    ScoreTransformConfig,
    SftResponses,
    TrainConfig,
)
from mpo.data.tokenizer import load_template
from mpo.stages.context import to_plain

if TYPE_CHECKING:
    from mpo.losses import Loss

TRUE_REWARD = {"_target_": "mpo.score.function.FunctionScorer", "function": "mpo.testbed.reward.true_reward"}
SFT_LOSS = {"_target_": "mpo.losses.SFT"}
EVERYTHING = {"_target_": "mpo.partition.Everything"}
BASELINE_SEED = 0
"""Seed of the starting policy's evaluation samples: one baseline for all seeds and losses."""


@dataclass(frozen=True)
class Policy:
    """A model that a stage loads: what a stage of this run wrote, or a folder or hub name from outside.

    ``untrained``: the same with its tokenizer and weights of no use, where that is there earlier.
    """

    stage: Stage | None = None
    path: str | None = None
    revision: str | None = None
    untrained: Policy | None = None

    def attach(self, stage: Stage, role: str = "policy") -> Stage:
        """``stage`` with this policy as its input ``role``."""
        if self.stage is not None:
            return replace(stage, inputs={**stage.inputs, role: self.stage})
        assert self.path is not None
        if Path(self.path).expanduser().exists():
            return replace(stage, files={**stage.files, role: str(Path(self.path).expanduser().resolve())})
        named = {role: {"path": self.path, "revision": self.revision}}
        return replace(stage, config={**stage.config, **named})


@dataclass(frozen=True)
class Round:
    """The stages of one pass from response sets to an evaluated policy."""

    prepare: Stage
    partition: Stage
    reference: Stage | None
    train: Stage
    evaluate: Stage


@dataclass(frozen=True)
class Graph:
    """A run's stages: ``data`` first, then what makes the starting policy, then ``rounds``."""

    data: Stage
    start: Policy
    rounds: list[Round] = field(default_factory=list)

    def stages(self, store: Store) -> Iterator[Stage]:
        """Every stage once, inputs before those who read them."""
        seen: set[str] = set()

        def walk(stage: Stage) -> Iterator[Stage]:
            mark = store.fingerprint(stage)
            if mark in seen:
                return
            seen.add(mark)
            for other in stage.inputs.values():
                yield from walk(other)
            yield stage

        for one in self.rounds:
            yield from walk(one.evaluate)


def compose(config: RunConfig, loss: Loss) -> Graph:
    """The graph of a run; ``loss`` is the configured loss, for what it declares that it needs."""
    rounds = config.rounds if config.regime.name is Regime.iterative else 1
    data = _data(config, loss, rounds)
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


def _data(config: RunConfig, loss: Loss, rounds: int) -> Stage:
    data = config.data
    if data.source == TESTBED and config.regime.name is Regime.sft:
        return _demonstrations(config, "data")
    if data.source == TESTBED:
        world = to_plain(data.testbed)
        prompts = {
            "prompts": max(1, int(world["prompts"] * data.fraction)) * rounds,
            "heldout_prompts": world["heldout_prompts"],
            "seed": world["seed"],
        }
        return Stage("data", "testbed", {"part": "prompts", **prompts}, inline=True)
    spec = {
        key: to_plain(getattr(data, key))
        for key in ("layout", "split", "revision", "score_field", "heldout_split", "heldout", "fraction", "limit",
                    "split_seed", "max_skipped_share")
    }  # fmt: skip
    from_policy = config.regime.name in (Regime.on_policy, Regime.iterative)
    spec["needs_scores"] = config.regime.name is Regime.off_policy and loss.needs_scores
    spec["contrasts"] = loss.contrasts and not from_policy
    known: dict[str, Any] = {}
    if config.regime.name is Regime.off_policy:  # scores that are there already are looked at before they are needed
        known["binning"] = _partition_config(config, config.partition, config.seed, loss)
    stage = Stage("data", "data", spec, settings=known)
    for role, source in (("source", data.source), ("heldout_source", data.heldout_source)):
        if source is not None:
            stage = _attach_source(stage, role, source)
    return stage


def _demonstrations(config: RunConfig, name: str) -> Stage:
    """The testbed's chat data: what its starting policy is tuned on."""
    world = config.data.testbed
    return Stage(
        name,
        "testbed",
        {"part": "demonstrations", "demonstrations": world.demonstrations, "seed": world.seed},
        inline=True,
    )


def _attach_source(stage: Stage, role: str, source: str) -> Stage:
    path = Path(source).expanduser()
    if path.exists():
        return replace(stage, files={**stage.files, role: str(path.resolve())})
    return replace(stage, config={**stage.config, role: source})


def _starting_policy(config: RunConfig, data: Stage) -> Policy:
    """The model named in the config, or one made from nothing: random weights, tokenizer, supervised fine-tuning."""
    model = config.model
    if model.scratch is None:
        return Policy(path=model.path, revision=model.revision)
    scratch = model.scratch
    examples = data
    if config.data.source == TESTBED:
        examples = _demonstrations(config, "start/demonstrations")
    made = {"architecture": dict(model.architecture), "tokenizer": scratch.tokenizer, "seed": scratch.seed}
    if scratch.tokenizer != TESTBED:
        made["vocab_size"] = scratch.vocab_size
    init = Policy(Stage("start/init", "init", made, inputs={"sets": examples}))
    if config.regime.name is Regime.sft:
        return init
    prepare = _prepare(config, "start/", examples, init, flatten=scratch.responses)
    all_in_one = _partition_config(config, EVERYTHING, 0, None)
    partition = Stage("start/partition", "partition", all_in_one, inputs={"prepare": prepare}, inline=True)
    train = _train(config, "start/sft", SFT_LOSS, scratch.sft, scratch.seed)
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
    sample = _sample(config, f"{prefix}sample", config.sample, splits, sampler, data, config.seed + number - 1)
    return _score(f"{prefix}score", config, sample)


def _score(name: str, config: RunConfig, sample: Stage) -> Stage:
    # A proxy reward is what training has to bear, not what the testbed's held-out sets are judged by.
    judge = TRUE_REWARD if config.data.source == TESTBED else dict(config.score)
    return Stage(
        name,
        "score",
        {"scorer": dict(config.score), "heldout": judge, "allow_targets": _allowed(config.score, config)},
        inputs={"sets": sample},
        # A function of the user's own gets a process of its own, with whatever it loads.
        inline=str(config.score.get("function", "")).startswith("mpo."),
    )


def _sample(
    config: RunConfig,
    name: str,
    how: SampleConfig,
    which: Mapping[str, Any],
    sampler: Policy,
    prompts: Stage,
    seed: int,
) -> Stage:
    slices = {"sample": to_plain(how), "seed": seed, **which}
    slices["stop_token_ids"] = list(config.model.stop_token_ids)
    slices |= {"max_prompt_tokens": config.data.max_prompt_tokens, "max_skipped_share": config.data.max_skipped_share}
    stage = Stage(name, "sample", slices, inputs={"prompts": prompts}, resumable=True)
    return sampler.attach(_with_tokenizer(config, stage))


def _with_tokenizer(config: RunConfig, stage: Stage) -> Stage:
    """``stage`` told which tokenizer and chat template to use; what lies in local files counts by its content."""
    model = config.model
    folder = None if model.tokenizer is None else Path(model.tokenizer).expanduser()
    local = folder is not None and folder.exists()
    slices = {
        "tokenizer": None if local else model.tokenizer,
        "chat_template": None if model.chat_template is None else load_template(model.chat_template),
        "trust_remote_code": model.trust_remote_code,
    }
    files = {"tokenizer": str(folder.resolve())} if folder is not None and local else {}
    return replace(stage, config={**stage.config, **slices}, files={**stage.files, **files})


def _prepare(config: RunConfig, prefix: str, sets: Stage, policy: Policy, flatten: SftResponses | None = None) -> Stage:
    data: DataConfig = config.data
    slices = {
        "max_prompt_tokens": data.max_prompt_tokens,
        "max_tokens": data.max_tokens,
        "max_skipped_share": data.max_skipped_share,
        "flatten": flatten.name if flatten else None,
    }
    # Tokenised and sorted into bins before the starting policy is trained, sets that cannot be used are told early.
    policy = policy.untrained or policy
    return policy.attach(_with_tokenizer(config, Stage(f"{prefix}prepare", "prepare", slices, inputs={"sets": sets})))


def _partition_config(config: RunConfig, partition: Mapping[str, Any], seed: int, loss: Loss | None) -> dict[str, Any]:
    """For ``loss``, or (None) for one that only imitates."""
    needs_scores = loss is not None and loss.needs_scores
    return {
        "partition": dict(partition),
        "transform": to_plain(config.data.score if needs_scores else ScoreTransformConfig()),
        "seed": seed,
        "contrasts": loss is not None and loss.contrasts,
        "needs_scores": needs_scores,
        "needs_sides": loss is not None and loss.needs_sides,
        "score_range": None if loss is None or loss.score_range is None else list(loss.score_range),
        "max_skipped_share": config.data.max_skipped_share,
        "allow_targets": _allowed(partition, config),
    }


def _allowed(node: Mapping[str, Any], config: RunConfig) -> list[str]:
    """``allow_targets`` where the node needs it, so that allowing one thing does not build the others again."""
    return [] if str(node.get("_target_", "")).startswith("mpo.") else list(config.allow_targets)


def _train(config: RunConfig, name: str, loss: Mapping[str, Any], train: TrainConfig, seed: int) -> Stage:
    plain = to_plain(train)
    settings = {key: plain.pop(key) for key in ("checkpoint_every", "keep_checkpoints", "micro_tokens")}
    slices = {
        "loss": dict(loss),
        "train": plain,
        "seed": seed,
        "processes": config.launcher.processes * config.launcher.nodes,
        "stop_token_ids": list(config.model.stop_token_ids),
        "allow_targets": _allowed(loss, config),
    }
    known = {"checkpointing": settings, "card": _card(config)}
    return _with_tokenizer(config, Stage(name, "train", slices, settings=known, resumable=True, distributed=True))


def _card(config: RunConfig) -> dict[str, Any]:
    """What a model card says of where a policy comes from."""
    model = config.model
    return {
        "starting_policy": redacted_name(model.path) or "made from nothing",
        "reference": redacted_name(model.reference) or "the starting policy",
        "source": redacted_name(config.data.source),
        "regime": config.regime.name.name,
        "partition": dict(config.partition),
    }


def _round(
    config: RunConfig, loss: Loss, number: int, prefix: str, data: Stage, sets: Stage, *, start: Policy, policy: Policy
) -> Round:
    """Train ``policy`` on ``sets`` against itself as reference, then compare with ``start``."""
    seed = config.seed + number - 1
    sft = config.regime.name is Regime.sft
    prepare = _prepare(config, prefix, sets, start, flatten=config.regime.responses if sft else None)
    inputs = {"prepare": prepare}
    slices = _partition_config(config, config.partition, seed, loss)
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
    train = _train(config, f"{prefix}train", config.loss, replace(config.train, lr=config.lr_of(number)), seed)
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
        "allow_targets": _allowed(config.loss, config),
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
                sample = _evaluation_sample(config, name, data, sampler, temperature, sampler_seed)
                inputs[f"{who}@{temperature:g}"] = _true_score(sample) if judged else sample
    settings = {"batch": config.evaluate.batch, "micro_tokens": config.train.micro_tokens}
    stage = Stage(f"{prefix}evaluate", "evaluate", slices, settings=settings, inputs=inputs)
    return before.attach(stage, "before")


def _evaluation_sample(
    config: RunConfig, name: str, prompts: Stage, sampler: Policy, temperature: float, seed: int
) -> Stage:
    how = replace(config.sample, n=config.evaluate.samples, temperature=temperature, top_p=1.0)
    which = {"splits": ["heldout"], "round": 1, "rounds": 1, "seed_rounds": 0, "prompts": config.evaluate.prompts}
    return _sample(config, name, how, which, sampler, prompts, seed)


def _true_score(sample: Stage) -> Stage:
    slices = {"scorer": TRUE_REWARD, "heldout": TRUE_REWARD, "allow_targets": []}
    return Stage(f"{sample.name}/score", "score", slices, inputs={"sets": sample}, inline=True)
