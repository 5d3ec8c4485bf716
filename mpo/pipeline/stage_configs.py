"""Single stages: which slice of the configuration each one reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.cache.artifacts import Stage
from mpo.config.files import redacted_name
from mpo.config.rules import TESTBED
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
from mpo.pipeline.graph import Policy
from mpo.stages.context import to_plain

if TYPE_CHECKING:
    from mpo.losses import Loss


TRUE_REWARD = {"_target_": "mpo.score.function.FunctionScorer", "function": "mpo.testbed.reward.true_reward"}
SFT_LOSS = {"_target_": "mpo.losses.SFT"}
EVERYTHING = {"_target_": "mpo.partition.Everything"}
BASELINE_SEED = 0
"""Seed of the starting policy's evaluation samples: one baseline for all seeds and losses."""


def data_stage(config: RunConfig, loss: Loss, rounds: int) -> Stage:
    """Prompts, and what responses and scores the source has."""
    data = config.data
    if data.source == TESTBED and config.regime.name is Regime.sft:
        return demonstrations_stage(config, "data")
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
        known["binning"] = partition_config(config, config.partition, config.seed, loss)
    stage = Stage("data", "data", spec, settings=known)
    for role, source in (("source", data.source), ("heldout_source", data.heldout_source)):
        if source is not None:
            stage = attach_source(stage, role, source)
    return stage


def demonstrations_stage(config: RunConfig, name: str) -> Stage:
    """The testbed's chat data: what its starting policy is tuned on."""
    world = config.data.testbed
    return Stage(
        name,
        "testbed",
        {"part": "demonstrations", "demonstrations": world.demonstrations, "seed": world.seed},
        inline=True,
    )


def attach_source(stage: Stage, role: str, source: str) -> Stage:
    """``stage`` reading a source: a file by its content, a hub set by its name."""
    path = Path(source).expanduser()
    if path.exists():
        return replace(stage, files={**stage.files, role: str(path.resolve())})
    return replace(stage, config={**stage.config, role: source})


def score_stage(name: str, config: RunConfig, sample: Stage) -> Stage:
    """Scores for what ``sample`` has drawn."""
    # A proxy reward applies to training only: the testbed's held-out sets are judged by the true one.
    judge = TRUE_REWARD if config.data.source == TESTBED else dict(config.score)
    return Stage(
        name,
        "score",
        {"scorer": dict(config.score), "heldout": judge, "allow_targets": allowed(config.score, config)},
        inputs={"sets": sample},
        resumable=True,
        # A function of the user's own gets a process of its own, with whatever it loads.
        inline=str(config.score.get("function", "")).startswith("mpo."),
    )


def sample_stage(
    config: RunConfig,
    name: str,
    how: SampleConfig,
    which: Mapping[str, Any],
    sampler: Policy,
    prompts: Stage,
    seed: int,
) -> Stage:
    """Responses drawn from ``sampler`` for the prompts of another stage."""
    slices = {"sample": to_plain(how), "seed": seed, **which}
    slices["stop_token_ids"] = list(config.model.stop_token_ids)
    slices |= {"max_prompt_tokens": config.data.max_prompt_tokens, "max_skipped_share": config.data.max_skipped_share}
    stage = Stage(name, "sample", slices, inputs={"prompts": prompts}, resumable=True)
    return sampler.attach(with_tokenizer(config, stage))


def with_tokenizer(config: RunConfig, stage: Stage) -> Stage:
    """``stage`` with the tokenizer and chat template to use; what lies in local files counts by its content."""
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


def prepare_stage(
    config: RunConfig, prefix: str, sets: Stage, policy: Policy, flatten: SftResponses | None = None
) -> Stage:
    """Sets tokenised with the policy's tokenizer."""
    data: DataConfig = config.data
    slices = {
        "max_prompt_tokens": data.max_prompt_tokens,
        "max_tokens": data.max_tokens,
        "max_skipped_share": data.max_skipped_share,
        "flatten": flatten.name if flatten else None,
    }
    # Tokenised and sorted into bins before the starting policy is trained, sets that cannot be used fail fast.
    policy = policy.untrained or policy
    return policy.attach(with_tokenizer(config, Stage(f"{prefix}prepare", "prepare", slices, inputs={"sets": sets})))


def partition_config(config: RunConfig, partition: Mapping[str, Any], seed: int, loss: Loss | None) -> dict[str, Any]:
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
        "allow_targets": allowed(partition, config),
    }


def allowed(node: Mapping[str, Any], config: RunConfig) -> list[str]:
    """``allow_targets`` where the node needs it, so that allowing one thing does not build the others again."""
    return [] if str(node.get("_target_", "")).startswith("mpo.") else list(config.allow_targets)


def train_stage(config: RunConfig, name: str, loss: Mapping[str, Any], train: TrainConfig, seed: int) -> Stage:
    """A training; its inputs are attached by the caller."""
    plain = to_plain(train)
    settings = {key: plain.pop(key) for key in ("checkpoint_every", "keep_checkpoints", "micro_tokens")}
    slices = {
        "loss": dict(loss),
        "train": plain,
        "seed": seed,
        "processes": config.launcher.processes * config.launcher.nodes,
        "stop_token_ids": list(config.model.stop_token_ids),
        "allow_targets": allowed(loss, config),
    }
    known = {"checkpointing": settings, "card": card(config)}
    return with_tokenizer(config, Stage(name, "train", slices, settings=known, resumable=True, distributed=True))


def card(config: RunConfig) -> dict[str, Any]:
    """What a model card says of where a policy comes from."""
    model = config.model
    return {
        "starting_policy": redacted_name(model.path) or "trained from scratch",
        "reference": redacted_name(model.reference) or "the starting policy",
        "source": redacted_name(config.data.source),
        "regime": config.regime.name.name,
        "partition": dict(config.partition),
    }


def evaluation_sample_stage(
    config: RunConfig, name: str, prompts: Stage, sampler: Policy, temperature: float, seed: int
) -> Stage:
    """Responses to held-out prompts at one temperature."""
    how = replace(config.sample, n=config.evaluate.samples, temperature=temperature, top_p=1.0)
    which = {"splits": ["heldout"], "round": 1, "rounds": 1, "seed_rounds": 0, "prompts": config.evaluate.prompts}
    return sample_stage(config, name, how, which, sampler, prompts, seed)


def true_score_stage(sample: Stage) -> Stage:
    """The testbed's true reward of what ``sample`` has drawn."""
    slices = {"scorer": TRUE_REWARD, "heldout": TRUE_REWARD, "allow_targets": []}
    return Stage(f"{sample.name}/score", "score", slices, inputs={"sets": sample}, resumable=True, inline=True)
