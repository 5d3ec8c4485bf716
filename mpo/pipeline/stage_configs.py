"""Single stages: which slice of the configuration each one reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.cache.stage import File, Hub, Nothing, Placement, Stage
from mpo.config.files import redacted_name, redacted_source
from mpo.config.nodes import apart
from mpo.config.schema import RunConfig, ScoreTransformConfig, SftResponses
from mpo.config.targets import TARGET, build, own_alone, resolve
from mpo.config.training import FREE, TrainConfig
from mpo.data.sources.base import Source
from mpo.data.sources.mixture import Mixture
from mpo.data.tokenizer import load_template
from mpo.errors import ConfigError
from mpo.evaluate.base import Measure
from mpo.partition import Partition
from mpo.pipeline.graph import Policy
from mpo.pipeline.needs import samples
from mpo.plain import to_plain
from mpo.sample.base import Sampler
from mpo.score.base import Scorer
from mpo.stages.nodes import data, embed, evaluate, partition, prepare, train
from mpo.types import OWN_SCORE

if TYPE_CHECKING:
    from mpo.losses import Loss

SFT_LOSS = {TARGET: "mpo.losses.SFT"}
EVERYTHING = {TARGET: "mpo.partition.Everything"}
VERDICTS = "verdicts"
"""Folder of the cache with verdicts of judges by their content, for runs to come."""
BASELINE_SEED = 0
"""Seed of the starting policy's evaluation samples: one baseline for all seeds and losses."""


def outside(name: str, revision: str | None = None) -> File | Hub:
    """A file or folder that is there, else a hub name."""
    path = Path(name).expanduser()
    return File(str(path.resolve())) if path.exists() else Hub(name, revision)


def data_stage(config: RunConfig, source: Source, loss: Loss) -> Stage:
    """Prompts, and what responses and scores the source has."""
    read, drawn = config.data, samples(config)
    named: data.Inputs[Stage] = data.Inputs()
    node, mixed = None, data.Config()
    if isinstance(read.source, str):
        other = None if read.heldout_source is None else outside(read.heldout_source)
        named = data.Inputs(outside(read.source, read.revision), other)
    elif isinstance(source, Mixture):
        named, mixed = _mixture(source)
    else:
        node = dict(read.source)
    contrasted = not drawn and config.regime.imitate is None
    binning = None
    if contrasted:  # scores that are there already are looked at before they are needed
        binning = partition_config(config, config.partition, config.seed, loss)
    slices = replace(
        mixed,
        source=node,
        rounds=config.rounds,
        layout=read.layout,
        split=read.split,
        score_field=read.score_field,
        heldout_split=read.heldout_split,
        heldout=read.heldout,
        fraction=read.fraction,
        limit=read.limit,
        split_seed=read.split_seed,
        max_skipped_share=read.max_skipped_share,
        needs_responses=not drawn or config.model.scratch is not None,
        needs_scores=contrasted and loss.needs_scores,
        contrasts=not drawn and loss.contrasts,
        allow_targets=[] if node is None else allowed(node, config),
    )
    return data.TASK.stage("data", slices, data.Settings(binning), named, here(source.immediate))


def _mixture(source: Mixture) -> tuple[data.Inputs[Stage], data.Config]:
    """The parts as inputs, and what counts beside their content."""
    parts = {name: outside(part.path, part.revision) for name, part in source.parts.items()}
    rows = source.heldout
    other = None if rows is None else outside(rows.path, rows.revision)
    config = data.Config(
        parts=[replace(part, path=name, revision=None) for name, part in source.parts.items()],
        total=source.total,
        heldout_rows=None if rows is None else replace(rows, path="", revision=None),
    )
    return data.Inputs(heldout_source=other, parts=parts), config


def demonstrations_stage(config: RunConfig, source: Source, name: str) -> Stage:
    """The source's demonstrations: what its starting policy is tuned on."""
    node = demonstrations_node(config, source)
    slices = data.Config(source=node, part=data.Part.demonstrations, allow_targets=allowed(node, config))
    return data.TASK.stage(name, slices, data.Settings(), data.Inputs(), here(source.immediate))


def demonstrations_node(config: RunConfig, source: Source) -> dict[str, Any]:
    """The source without what its demonstrations and its tokenizer do not depend on."""
    return {TARGET: config.data.source[TARGET], **to_plain(source.for_demonstrations())}


def here(immediate: bool) -> Placement:
    """In the run's own process, where that takes no time."""
    return Placement.here if immediate else Placement.process


def side_by_side(
    nodes: Iterable[Mapping[str, Any]], base: type[Sampler] | type[Scorer], key: str, config: RunConfig
) -> Placement:
    """In all of the launcher's processes, if these samplers or scorers allow it."""
    try:
        classes = [resolve(node, base, config.allow_targets, key) for node in nodes]
    except ConfigError:  # a plan needs neither them nor their packages
        return Placement.process
    return Placement.replicas if all(each.replicated for each in classes) else Placement.process


def tokenizer(config: RunConfig) -> File | Hub | None:
    """Another tokenizer than the model's own."""
    return None if config.model.tokenizer is None else outside(config.model.tokenizer)


def chat_template(config: RunConfig) -> str | None:
    """The text of a template that replaces the tokenizer's own."""
    return None if config.model.chat_template is None else load_template(config.model.chat_template)


def prepare_stage(
    config: RunConfig,
    prefix: str,
    sets: Stage,
    policy: Policy,
    score: str,
    flatten: SftResponses | None = None,
    marks: list[str] | None = None,
) -> Stage:
    """Sets tokenised with the policy's tokenizer.

    Args:
        score: name of the one by which the best is imitated.
        marks: of thoughts that are not trained on.
    """
    slices = prepare.Config(
        max_prompt_tokens=config.data.max_prompt_tokens,
        max_tokens=config.data.max_tokens,
        max_skipped_share=config.data.max_skipped_share,
        flatten=flatten,
        score=score if flatten is SftResponses.best else OWN_SCORE,
        chat_template=chat_template(config),
        template_arguments=dict(config.model.template_arguments),
        trust_remote_code=config.model.trust_remote_code,
        marks=marks,
    )
    # Tokenised and sorted into bins before the starting policy is trained, sets that cannot be used fail fast.
    inputs = prepare.Inputs(sets, policy.tokenizer, tokenizer(config))
    return prepare.TASK.stage(f"{prefix}prepare", slices, Nothing(), inputs)


def thought_marks(config: RunConfig) -> list[str] | None:
    """Of thoughts, where the tokens after them alone are trained on."""
    thinking = config.model.thinking
    if thinking.trained or thinking.start is None or thinking.end is None:
        return None
    return [thinking.start, thinking.end]


def partition_config(
    config: RunConfig,
    node: Mapping[str, Any],
    seed: int,
    loss: Loss | None,
    scores: tuple[str, str] = (OWN_SCORE, OWN_SCORE),
) -> partition.Config:
    """For ``loss``, or (None) for one that only imitates; ``scores`` as :func:`score_names`."""
    needs_scores = loss is not None and loss.needs_scores
    return partition.Config(
        partition=dict(node),
        score=scores[0],
        heldout_score=scores[1],
        transform=config.data.score if needs_scores else ScoreTransformConfig(),
        seed=seed,
        contrasts=loss is not None and loss.contrasts,
        needs_scores=needs_scores,
        needs_sides=loss is not None and loss.needs_sides,
        score_range=None if loss is None or loss.score_range is None else list(loss.score_range),
        max_skipped_share=config.data.max_skipped_share,
        allow_targets=allowed(node, config),
    )


def embed_stage(config: RunConfig, prefix: str, sets: Stage) -> Stage | None:
    """How alike the responses are, for a partition that reads it."""
    made = build(config.partition, Partition, config.allow_targets, "partition")  # type: ignore[type-abstract]
    if not made.needs_embeddings:
        return None
    options = vars(made)
    encoder = outside(options["path"], options.get("revision"))
    return embed.TASK.stage(f"{prefix}embed", Nothing(), Nothing(), embed.Inputs(sets, encoder))


def allowed(node: Mapping[str, Any], config: RunConfig) -> list[str]:
    """``allow_targets`` where the node needs it, so that allowing one thing does not build the others again."""
    return [] if own_alone(node) else list(config.allow_targets)


def train_stage(
    config: RunConfig,
    name: str,
    loss: Mapping[str, Any],
    how: TrainConfig,
    seed: int,
    inputs: train.Inputs[Stage],
    policy_is_reference: bool = False,
    keep_state: bool = False,
    rewards: train.Rewards | None = None,
) -> Stage:
    """A training; ``keep_state``: for one that goes on with its optimizer."""
    default = TrainConfig()
    settled = replace(how, **vars(how.settled), memory=default.memory)
    allow = allowed(loss, config) + ([] if rewards is None else allowed(rewards.scorer, config))
    slices = train.Config(
        loss=dict(loss),
        train=replace(settled, **{name: getattr(default, name) for name in FREE}),
        seed=seed,
        processes=config.launcher.processes * config.launcher.nodes,
        stop_token_ids=list(config.model.stop_token_ids),
        policy_is_reference=policy_is_reference,
        chat_template=chat_template(config),
        template_arguments=dict(config.model.template_arguments),
        trust_remote_code=config.model.trust_remote_code,
        allow_targets=list(dict.fromkeys(allow)),
        keep_state=keep_state,
        rewards=rewards,
    )
    return train.TASK.stage(name, slices, train.Settings(settled, card(config)), inputs)


def card(config: RunConfig) -> dict[str, Any]:
    """What a model card says of where a policy comes from."""
    model, source = config.model, config.data.source
    return {
        "starting_policy": redacted_name(model.path) or "trained from scratch",
        "reference": redacted_name(model.reference) or "the starting policy",
        "source": redacted_name(source) if isinstance(source, str) else redacted_source(source),
        "regime": config.regime.name,
        "partition": redacted_source(config.partition),
    }


def measure_stage(
    config: RunConfig,
    stage_name: str,
    name: str,
    measure: Measure,
    seed: int,
    inputs: evaluate.Inputs[Stage],
    score: str | None,
    models: evaluate.Models | None,
) -> Stage:
    """The measure ``name`` of a trained policy; ``score``: name of the true rewards of its samples."""
    node, files, taken = parted(config, name, measure)
    needed = allowed(node, config) + (allowed(models.loss, config) if models is not None else [])
    slices = evaluate.Config(node, seed, score, models, list(dict.fromkeys(needed)))
    key = f"evaluate.measures.{name}"
    verdicts = str(Path(config.cache_dir).expanduser().resolve() / VERDICTS)
    memory = config.train.settled
    settings = evaluate.Settings(
        config.evaluate.batch, memory.row_tokens, taken, key, verdicts, memory.sequence_parallel
    )
    inputs = replace(inputs, files=files, models={what: outside(*where) for what, where in measure.models.items()})
    placement = here(measure.immediate) if models is None else Placement.group
    stage = evaluate.TASK.stage(stage_name, slices, settings, inputs, placement)
    return replace(stage, resumable=measure.resumable)


def parted(config: RunConfig, name: str, measure: Measure) -> tuple[dict[str, Any], dict[str, File], dict[str, Any]]:
    """A measure's node without what cannot change its findings; its files, by option; the options taken out."""
    paths = named_files(measure)
    free = measure.change_nothing | paths.keys()
    node, taken = apart(config.evaluate.measures[name], free)
    taken |= {option: str(path) for option, path in paths.items()}
    files = {option: File(str(path)) for option, path in paths.items()}
    return node, files, taken


def named_files(measure: Measure) -> dict[str, Path]:
    """Files and folders that a measure's options name, by option; a name of something else is none."""
    named = {option: getattr(measure, option) for option in sorted(measure.files)}
    paths = {option: Path(value).expanduser().resolve() for option, value in named.items() if value}
    return {option: path for option, path in paths.items() if path.exists()}
