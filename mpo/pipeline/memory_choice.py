"""Fills in the memory settings that a configuration leaves open, before its stages are composed."""

from __future__ import annotations

from dataclasses import replace

from mpo.config.limits import trainings
from mpo.config.schema import RoundReference, RunConfig
from mpo.config.source import source_of
from mpo.config.training import MemoryChoice, MemorySettings, Offload, TrainConfig
from mpo.data.sources import Mixture
from mpo.errors import ConfigError
from mpo.partition import Partition
from mpo.pipeline.evaluation_rules import check_evaluation
from mpo.pipeline.needs import forwarding
from mpo.pipeline.plan_parts import sketch_parts
from mpo.pipeline.plan_sizes import expected_sets, forwarded, looked_at
from mpo.pipeline.rules import Objects
from mpo.planning.cards import named_card
from mpo.planning.data_size import DataSize
from mpo.planning.fitting import SPARE, Choice, Fit, Load, Peak, Room, choose, with_settings
from mpo.planning.forecast import planned_device
from mpo.planning.machine import card_memory, host_memory
from mpo.planning.memory import effective_stage
from mpo.planning.sizes import known_architecture
from mpo.track.units import memory as size
from mpo.track.units import percent

START = "model.scratch.sft"
ORDINALS = {1: "every layer", 2: "every second layer", 3: "every third layer", 4: "every fourth layer"}


def settle(config: RunConfig, objects: Objects) -> tuple[RunConfig, dict[str, str]]:
    """``config`` with values for all memory settings, and what the plan says of those that were chosen, by key.

    Raises:
        ConfigError: none of those that would have to be chosen is expected to fit; a dry run says so in its plan.
    """
    said: dict[str, str] = {}
    for key, train in list(trainings(config)):
        settings = train.settled
        if train.memory is MemoryChoice.auto:
            settings, said[key] = _chosen(config, key, train, objects)
        settled = with_settings(train, settings)
        config = _with(config, key, settled)
        check_evaluation(key, settled, config, source_of(config.data, config.allow_targets))
    return config, said


def _with(config: RunConfig, key: str, train: TrainConfig) -> RunConfig:
    if key != START:
        return replace(config, train=train)
    assert config.model.scratch is not None
    return replace(config, model=replace(config.model, scratch=replace(config.model.scratch, sft=train)))


def _chosen(config: RunConfig, key: str, train: TrainConfig, objects: Objects) -> tuple[MemorySettings, str]:
    """The settings of a training, what is open chosen, and the plan's line on them."""
    usual = train.settled
    if not train.open:
        return usual, "nothing, all five memory settings have values"
    group = config.launcher.processes * config.launcher.nodes
    as_usual = f"{_words(usual, effective_stage(train, usual.zero_stage, group))}, as with {key}.memory=given"
    shape = known_architecture(config.model)
    if shape is None:
        return usual, f"{as_usual}: the model's sizes are not known before it is loaded (model.architecture)"
    room = room_of(config)
    if room is None:
        return usual, f"{as_usual}: no card's memory is known here, and none is named (launcher.device=h100, say)"
    data = config.data
    sets = _sets(config, objects.partition) if key != START else None
    limits = data.max_prompt_tokens, data.max_tokens
    load = Load(shape, group, config.launcher.nodes, *limits, sets, needs_reference=False)
    if key != START:  # of which no stage has a reference, and none evaluates it
        needed, same = objects.loss.needs_reference, same_reference(config)
        evaluate_batch = config.evaluate.batch if forwarding(config) else 0
        load = replace(load, needs_reference=needed, same_reference=same, evaluate_batch=evaluate_batch)
    choice = choose(train, load, room)
    if choice.best is None:
        what = f"nothing fits {_limit(room)}: the smallest, {_line(choice.smallest)}, needs {_needs(choice.smallest)}"
        if not config.dry_run:
            remedy = "take more or larger cards, adapters or a smaller model"
            if choice.smallest.peak is Peak.evaluation:
                left_out = " ".join(f"~evaluate.measures.{name}" for name in forwarding(config))
                remedy = f"take more or larger cards or a smaller model, or do not forward it ({left_out})"
            raise ConfigError(what, f"{key}.memory", f"{remedy}; {key}.memory=given tries all the same")
        return choice.smallest.settings, f"{what}; a run would stop here"
    return choice.best.settings, _why(key, train, choice, choice.best, room)


def _sets(config: RunConfig, partition: Partition) -> DataSize | None:
    """As the configuration and the beginnings of local files let expect them: what is in the cache must not count, for
    the next run's would choose otherwise."""
    source, data = source_of(config.data, config.allow_targets), config.data
    limits = data.max_prompt_tokens, data.max_tokens
    parts = sketch_parts(source, *limits) if isinstance(source, Mixture) else {}
    sets = expected_sets(config, looked_at(data, source, parts), source)
    return None if sets is None else forwarded(config, sets, source, partition)


def room_of(config: RunConfig) -> Room | None:
    """Memory of a process: of the named card, this machine's, or a share of its memory where it has none; None for a
    plan for cards that are neither here nor named."""
    card, device, processes = named_card(config), planned_device(config), config.launcher.processes
    if card is not None:
        return Room("cuda", card.memory)
    if device == "cpu":
        return Room("cpu", host_memory() // processes)
    import torch

    found = card_memory() if torch.cuda.is_available() else None
    return None if found is None else Room("cuda", found, host_memory() // processes)


def same_reference(config: RunConfig) -> bool:
    """Whether the reference of every round is the policy that its training starts from."""
    newest = config.rounds == 1 or config.regime.reference is RoundReference.newest
    return config.model.reference is None and newest


def _why(key: str, train: TrainConfig, choice: Choice, best: Fit, room: Room) -> str:
    given = [name for name in vars(best.settings) if name not in train.open]
    text = f"{_line(best)}: at most {_needs(best, room)}"
    text += f", with {', '.join(given)} as given" if given else ""
    text += f"; planned as the fastest of {choice.fitting} that leave {percent(SPARE)} free"
    usual = choice.usual
    if usual.settings == best.settings:
        return f"{text}, and what {key}.memory=given takes"
    text += f"; {key}.memory=given ({_line(usual)}) would need {_needs(usual)}"
    if not usual.fits(room):
        return f"{text}, which do not fit"
    return f"{text} and take {usual.cost / best.cost:.2f} times as long"


def _limit(room: Room) -> str:
    host = "" if room.host is None else f" and {size(room.host)} of host memory"
    return f"{size(room.memory)}{host} with {percent(SPARE)} left free"


def _needs(fit: Fit, room: Room | None = None) -> str:
    """E.g. ``60.2 GiB of 74.5 GiB``; with what the most is needed for, if that is not the training itself."""
    of = "" if room is None else f" of {size(room.memory)}"
    peak = "" if fit.peak is Peak.training else f" ({fit.peak.value})"
    return f"{size(fit.needed)}{of}{peak}" + (f" and {size(fit.host)} of host memory" if fit.host else "")


def _line(fit: Fit) -> str:
    return _words(fit.settings, fit.stage)


def _words(settings: MemorySettings, stage: int) -> str:
    """E.g. ``ZeRO 2, no layer recomputed, 8,192 tokens per micro-batch``."""
    every = settings.activation_checkpointing
    again = ORDINALS.get(every, f"every {every}th layer") if every else "no layer"
    offloaded = {Offload.none: "", Offload.optimizer: ", optimizer offloaded", Offload.parameters: ", all offloaded"}
    text = f"ZeRO {stage}{offloaded[settings.offload]}, {again} recomputed"
    text += f", {settings.row_tokens:,} tokens per micro-batch"
    return text + (f" of {settings.sequence_parallel} processes" if settings.sequence_parallel > 1 else "")
