"""Rules where groups meet: each names the key, the conflict and what to do, before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from mpo.config.files import check_files
from mpo.config.limits import FACTOR, check_limits, trainings
from mpo.config.schema import RunConfig
from mpo.config.source import check_source_keys, source_of
from mpo.config.targets import OWN, TARGET, build
from mpo.config.thinking import check_thinking
from mpo.config.training import Schedule
from mpo.data.sources.base import Source
from mpo.data.tokenizer import template_head
from mpo.errors import ConfigError
from mpo.partition import Partition
from mpo.pipeline.evaluation_rules import check_evaluation
from mpo.pipeline.needs import answers, draws, responses_a_set, samples
from mpo.pipeline.partition_rules import check_partition
from mpo.pipeline.scoring import check_scorers
from mpo.pipeline.training_rules import check_training
from mpo.planning.cards import named_card
from mpo.sample.base import Sampler
from mpo.track.logger import build_loggers

if TYPE_CHECKING:
    from mpo.losses import Loss

NO_REFERENCE = "none"
ARCHITECTURE_MOST = {
    **{"hidden_size": 10**6, "intermediate_size": 10**7, "num_hidden_layers": 512, "num_attention_heads": 10**4},
    **{"num_key_value_heads": 10**4, "head_dim": 10**4, "vocab_size": 10**7, "max_position_embeddings": 10**9},
}


@dataclass(frozen=True)
class Objects:
    """What a configuration's ``_target_`` groups amount to."""

    loss: Loss
    partition: Partition


def validate(config: RunConfig) -> Objects:
    """Check a configuration as a whole and build its loss and partition.

    Raises:
        ConfigError: a value out of range, or keys that contradict each other.
        DataError: a data file that is missing or empty.
    """
    return build_objects(config, check(config))


def check(config: RunConfig) -> Partition:
    """The part of :func:`validate` that needs no torch, and so takes no time; returns the partition."""
    check_limits(config)
    source = source_of(config.data, config.allow_targets)
    _check_model(config, source)
    check_source_keys(config.data, source)
    _check_lengths(config)
    _check_regime(config)
    _check_launcher(config)
    for key, train in trainings(config):
        check_training(key, train, config)
        check_evaluation(key, train, config, source)
    partition = build(config.partition, Partition, config.allow_targets, "partition")  # type: ignore[type-abstract]
    check_partition(config, partition)
    check_files(config)
    build_loggers(config.logger, config.allow_targets)
    check_scorers(config, source)
    if (draws(config) or answers(config)) and (not config.dry_run or str(config.sampler.get(TARGET)).startswith(OWN)):
        sampler = build(config.sampler, Sampler, config.allow_targets, "sampler")  # type: ignore[type-abstract]
        if not sampler.loads_policy:
            _check_served(config)
    return partition


def build_objects(config: RunConfig, partition: Partition) -> Objects:
    """The part of :func:`validate` that needs torch: the loss, and whether it fits the rest."""
    from mpo.losses import Loss

    loss = build(config.loss, Loss, config.allow_targets, "loss")  # type: ignore[type-abstract]
    loss.check_partition(partition)
    _check_loss(config, loss)
    return Objects(loss, partition)


def _check_model(config: RunConfig, source: Source) -> None:
    model = config.model
    scratch = model.scratch
    if model.path is None and scratch is None:
        raise ConfigError("has no value", "model.path", "name a folder or hub model, or choose a model: model=tiny")
    if model.path is not None and scratch is not None:
        raise ConfigError(
            f"'{model.path}' and model.scratch contradict each other",
            "model.path",
            "write model.scratch=null too, or leave it out",
        )
    template_head(model.template_arguments)
    check_thinking(model.thinking, samples(config))
    kind = model.architecture.get("model_type", "llama")
    if not isinstance(kind, str):
        raise ConfigError(f"{kind!r} does not fit", "model.architecture.model_type", "give a name, e.g. llama")
    for name, most in ARCHITECTURE_MOST.items():
        value = model.architecture.get(name, 1)
        if name in ("num_key_value_heads", "head_dim") and value is None:
            continue  # as transformers' own configs have it
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            key = f"model.architecture.{name}"
            raise ConfigError(f"{value!r} does not fit", key, f"give a whole number from 1 to {most:,}")
    heads = model.architecture.get("num_attention_heads")
    hidden = model.architecture.get("hidden_size")
    if heads and hidden and "head_dim" not in model.architecture and hidden % heads:
        key = "model.architecture.num_attention_heads"
        raise ConfigError(f"{heads} heads do not divide hidden_size {hidden}", key, "choose a divisor")
    key_values = model.architecture.get("num_key_value_heads")
    if heads and key_values and heads % key_values:
        key = "model.architecture.num_key_value_heads"
        raise ConfigError(f"{key_values} does not divide num_attention_heads {heads}", key, "choose a divisor")
    if scratch is None:
        return
    for name in ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if name not in model.architecture:
            raise ConfigError("has no value, a model from scratch needs it", f"model.architecture.{name}", "give one")
    from_nothing = [("model.scratch.sft", scratch.sft)]
    if config.regime.imitate is not None and not config.regime.samples:
        from_nothing.append(("train", config.train))
    for key, train in from_nothing:
        if train.lora is not None:
            raise ConfigError("adapters need trained weights, these are random", f"{key}.lora", "leave it out")
    if scratch.tokenizer not in ("bpe", "source"):
        raise ConfigError(f"'{scratch.tokenizer}' is unknown", "model.scratch.tokenizer", "choose bpe or source")
    if scratch.tokenizer == "source" and not source.own_tokenizer:
        what = f"'{source.name}' has no tokenizer of its own"
        raise ConfigError(what, "model.scratch.tokenizer", "choose model=small, or model.scratch.tokenizer=bpe")


def _check_lengths(config: RunConfig) -> None:
    data = config.data
    if data.heldout > 1 and data.heldout != int(data.heldout):
        raise ConfigError(f"{data.heldout} is neither a share nor a number of sets", "data.heldout",
                          "give a share below 1, or a whole number")  # fmt: skip
    if data.max_prompt_tokens >= data.max_tokens:
        what = f"{data.max_prompt_tokens} leaves no room for a response within data.max_tokens {data.max_tokens}"
        raise ConfigError(what, "data.max_prompt_tokens", "lower it, or raise data.max_tokens")
    limit = config.model.architecture.get("max_position_embeddings")
    if limit is None:
        return
    if data.max_tokens > limit:
        raise ConfigError(f"{data.max_tokens} is more than the model's {limit} positions", "data.max_tokens",
                          f"lower it to {limit} or less")  # fmt: skip
    if draws(config) and data.max_prompt_tokens + config.sample.max_new_tokens > limit:
        what = f"with prompts of {data.max_prompt_tokens} tokens it passes the model's {limit} positions"
        raise ConfigError(what, "sample.max_new_tokens", f"lower it to {limit - data.max_prompt_tokens} or less")


def _check_regime(config: RunConfig) -> None:
    regime = config.regime
    if config.rounds > 1 and not regime.samples:
        what = f"{config.rounds} rounds, but regime {regime.name} draws no new responses"
        raise ConfigError(what, "rounds", "add regime=iterative")
    for key in ("round_lr", "round_beta"):
        shares, of = getattr(config, key), "train.lr" if key == "round_lr" else "loss.beta"
        if not shares:
            raise ConfigError(f"no share of {of}", key, "give at least one, as in [1.0, 0.8, 0.6]")
        if len(shares) > 1 and not regime.samples:
            what = f"a share of {of} a round, but regime {regime.name} has one"
            raise ConfigError(what, key, "add regime=iterative")
    if regime.carry_optimizer:
        _check_carried(config)
    if config.round_beta != [1.0] and not isinstance(config.loss.get("beta"), int | float):
        raise ConfigError("the loss has no beta", "round_beta", "leave it out, or choose a loss with one")


def _check_served(config: RunConfig) -> None:
    """A server has one policy, the starting one: a name that it answers to would pass for the policies that follow."""
    remedy = "take sampler=vllm, which loads each policy itself"
    if config.model.scratch is not None or config.model.path is None:
        raise ConfigError("the starting policy is made by the run, so no server has it", "sampler", remedy)
    if config.rounds > 1:
        what = f"a server has one policy, but each of {config.rounds} rounds samples from another"
        raise ConfigError(what, "sampler", f"{remedy}, or rounds=1")
    if config.evaluate.measures and config.evaluate.temperatures:
        what = "held-out prompts are answered by the trained policy, which no server has"
        raise ConfigError(what, "evaluate.temperatures", "evaluate.temperatures=[], or sampler=vllm")
    if answers(config):
        what = "a benchmark's questions are answered by the trained policy, which no server has"
        raise ConfigError(what, "evaluate.measures", "take sampler=vllm, or leave the benchmark out")


def _check_carried(config: RunConfig) -> None:
    """An optimizer's state that goes from round to round holds its learning rate and the place in the schedule."""
    if config.train.schedule is not Schedule.constant:
        what = "regime.carry_optimizer goes on with one schedule, which would end with the first round"
        raise ConfigError(what, "train.schedule", f"train.schedule={Schedule.constant.name}")
    if config.round_lr != [1.0]:
        what = "regime.carry_optimizer keeps one learning rate"
        raise ConfigError(what, "round_lr", "round_lr=[1.0]")
    if config.train.lora is not None:
        what = "adapters are merged after each round, so the next one has others, and no state for them"
        raise ConfigError(what, "train.lora", "train/lora=none, or regime.carry_optimizer=false")


def _check_launcher(config: RunConfig) -> None:
    launcher = config.launcher
    if named_card(config) is not None and not config.dry_run:
        what = f"'{launcher.device}' is what a plan is made for, not what a run would run on"
        raise ConfigError(what, "launcher.device", "add dry_run=true, or leave it out")
    if launcher.node_rank >= launcher.nodes:
        raise ConfigError(f"{launcher.node_rank} with {launcher.nodes} nodes", "launcher.node_rank",
                          f"give 0 to {launcher.nodes - 1}")  # fmt: skip
    host, _, port = launcher.rendezvous.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(f"'{launcher.rendezvous}' is not host:port", "launcher.rendezvous", "write e.g. node0:29500")
    if launcher.nodes > 1 and (host in ("localhost", "127.0.0.1") or int(port) == 0):
        raise ConfigError(f"{launcher.nodes} nodes cannot meet at '{launcher.rendezvous}'", "launcher.rendezvous",
                          "name the first machine and a free port, e.g. node0:29500")  # fmt: skip


def _check_loss(config: RunConfig, loss: Loss) -> None:
    from mpo.losses import SFT

    for key, value in _numbers(loss, "loss"):
        if value != 0 and abs(value) not in FACTOR:
            raise ConfigError(f"{value:g} is out of range", key, f"give a number {FACTOR}")
    if config.regime.imitate is not None and not isinstance(loss, SFT):
        what = f"regime {config.regime.name} trains on single responses, {type(loss).__name__} on sets"
        raise ConfigError(what, "loss", "leave loss out, or choose another regime")
    if loss.needs_mismatched_kl and not config.model.thinking.trained:
        what = f"{type(loss).__name__} compares whole responses with those of other prompts, thoughts included"
        raise ConfigError(what, "model.thinking.trained", "leave it out, or choose another loss")
    if loss.needs_reference and config.model.reference == NO_REFERENCE:
        raise ConfigError(f"{type(loss).__name__} needs a reference", "model.reference",
                          "leave it out, or choose a loss without, e.g. loss=simpo")  # fmt: skip
    if loss.contrasts and config.regime.imitate is None and responses_a_set(config) == 1:
        raise ConfigError(f"{type(loss).__name__} contrasts responses, a set has one", "loss",
                          "raise sample.n, choose other data, or regime=sft")  # fmt: skip


def _numbers(owner: Any, key: str) -> Iterator[tuple[str, float]]:
    """Hyper-parameters by key, those of a sum's terms too; a class of the user's own has ranges of its own."""
    for field in fields(owner) if type(owner).__module__.startswith(OWN) else ():
        value = getattr(owner, field.name)
        if isinstance(value, float):
            yield f"{key}.{field.name}", value
        elif isinstance(value, dict):
            for name, each in value.items():
                yield from _numbers(each, f"{key}.{field.name}.{name}")
        elif is_dataclass(value):
            yield from _numbers(value, f"{key}.{field.name}")
