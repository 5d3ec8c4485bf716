"""The plan that a run prints before it does anything: stages, sizes, memory, disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mpo.cache.artifacts import Store
from mpo.cache.stage import Placement, Stage
from mpo.config.files import DATA_SUFFIXES, check_disk, is_local
from mpo.config.schema import RoundReference, RunConfig
from mpo.config.source import source_of
from mpo.config.training import Precision, Quantization, TrainConfig
from mpo.data.sources import Mixture, Source
from mpo.pipeline.graph import Graph
from mpo.pipeline.memory_choice import room_of, same_reference
from mpo.pipeline.needs import forwarding, samples
from mpo.pipeline.plan_drawing import Part, drawing_parts, hours_line
from mpo.pipeline.plan_parts import parts_line, sketch_parts
from mpo.pipeline.plan_sizes import expected_prompts, forwarded, looked_at, training_sets
from mpo.pipeline.regimes import measures_left_out
from mpo.pipeline.rules import Objects
from mpo.pipeline.scoring import scorer_nodes
from mpo.planning import disk, memory
from mpo.planning.cards import Card, named_card
from mpo.planning.compute import forward_flops
from mpo.planning.data_size import DataSize, batch_warning, optimizer_steps
from mpo.planning.forecast import Forecast, forecast, planned_device
from mpo.planning.sizes import Architecture, adapter_parameters, known_architecture, parameters
from mpo.track.console import Console
from mpo.track.units import count, duration, number, step_duration
from mpo.track.units import memory as size

NOTHING_READ = DataSize(0, 0, 0, 0)
UNKNOWN = (
    "not known before model and data are read: give model.architecture, data.expected_sets, expected_prompt_tokens and "
    "expected_response_tokens"
)
"""Of the hours of a run."""
WORTH_SAYING = 1.5
"""How many times as fast bfloat16 has to be for the plan to speak of it."""


def show_plan(
    console: Console,
    config: RunConfig,
    graph: Graph,
    store: Store,
    objects: Objects,
    chosen: Mapping[str, str] | None = None,
) -> Forecast | None:
    """Print the plan; returns what it says of the training's time and memory, where the sizes are known.

    Args:
        chosen: what to say of memory settings, see :func:`mpo.pipeline.memory_choice.settle`.

    Raises:
        ConfigError: the cache's disk has no room for what the run would write.
    """
    shape = known_architecture(config.model)
    source, imitate = source_of(config.data, config.allow_targets), config.regime.imitate
    limits = config.data.max_prompt_tokens, config.data.max_tokens
    sketches = sketch_parts(source, *limits) if isinstance(source, Mixture) else {}
    read = looked_at(config.data, source, sketches)
    sets = training_sets(config, read, source, graph, store)
    trained = None if sets is None else forwarded(config, sets, source, objects.partition)
    sets = sets if imitate is None else trained
    stages = list(graph.stages(store))
    missing = [stage for stage in stages if not store.complete(stage)]
    rows = [[stage.name, "build" if stage in missing else "cached", _where(stage, config)] for stage in stages]
    console.table(rows, ["stage", "", "runs as"])
    facts = {"model": _model(config), "data": _data(config, source, sets)}
    if isinstance(source, Mixture):
        facts["parts"] = parts_line(source, sketches)
    facts["training"] = _training(config, trained)
    for key, line in (chosen or {}).items():
        facts["chosen" if key == "train" else "chosen, start"] = line
    if samples(config) and (scorers := list(scorer_nodes(config))):
        facts["scores"] = f"{scorers[0]} trains" + (f"; beside it {', '.join(scorers[1:])}" if scorers[1:] else "")
    if shape is not None and shape.experts:
        each = f"{shape.chosen} of {shape.experts} a token"
        facts["experts"] = f"{each}; routers are trained by the loss alone, no load-balancing loss is added"
    if imitate is None:
        facts["reference"] = _reference(config, objects, shape, sets)
    if shape is not None and sets is not None and forwarding(config) and _in_4_bits(config):
        facts["evaluation"] = _evaluation(config, shape, sets)
    if left_out := measures_left_out(config, source):
        facts["left out"] = ", ".join(f"evaluate/{name} ({why})" for name, why in left_out.items())
    downloads = _downloads(config, source)
    facts["downloads"] = ", ".join(downloads) if downloads else "none"
    expected, parts = None, list[Part]()
    card, prompts = named_card(config), expected_prompts(config, read, source)
    if shape is not None and sets is not None and trained is not None:
        expected = forecast(config, shape, trained, store.root)
        facts["memory"] = _memory(config, expected.memory, shape, trained)
        facts["time"] = time_line(config, expected, trained)
        if card is not None:
            parts.append(_trains(config, expected, trained))
        if card is not None and objects.loss.needs_reference:
            parts.append(_forwards(config, card, shape, sets, prompts.heldout if prompts is not None else None))
    drawing = drawing_parts(config, graph, store, shape, prompts)
    facts |= {part.name: part.line for part in drawing}
    if card is not None:
        facts["card"] = f"{config.launcher.processes * config.launcher.nodes} × {card.title}, {card.facts}"
        facts["hours"] = hours_line([*parts, *drawing], config.rounds) if parts else UNKNOWN
        if expected is not None and expected.memory.device > card.memory:
            facts["hours"] += "; training does not fit the card, see memory"
    if shape is not None:

        def disk_of(rounds: int) -> disk.Disk:
            return disk.run_disk(
                shape,
                config.train,
                sets or NOTHING_READ,
                processes=config.launcher.processes * config.launcher.nodes,
                rounds=rounds,
                keeps_states=config.regime.carry_optimizer,
                needs_reference=objects.loss.needs_reference,
                downloads_model=bool(downloads) and config.model.path in downloads,
                downloads_data=any(name in downloads for name in source.reads.values()),
            )

        needed = disk_of(config.rounds)
        beside = "" if sets else " beside the data"
        download = needed.download + sum(part.download for part in drawing)
        downloaded = f", about {size(download)} for downloads" if download else ""
        facts["disk"] = f"about {size(needed.cache)} under the cache{beside}, {size(needed.export)} the trained model"
        facts["disk"] += downloaded
        if missing and not config.dry_run:
            left = [one for one in graph.rounds if not store.complete(one.train)]
            begun = [stage for one in left for stage in (one.prepare, one.reference, one.train) if stage is not None]
            check_disk(config.cache_dir, disk_of(len(left)).cache - sum(map(store.written, begun)))
    if trained is not None and (warning := batch_warning(config.train.global_batch, trained.sets)):
        facts["warning"] = warning
    facts["cache"] = str(Path(config.cache_dir).expanduser())
    console.summary("plan", facts)
    console.line("")
    return expected


def _where(stage: Stage, config: RunConfig) -> str:
    if not stage.placement.distributed:
        return stage.placement.value
    group = config.launcher.processes * config.launcher.nodes
    if group == 1:
        return Placement.process.value
    return f"{group} processes" + (" side by side" if stage.placement is Placement.replicas else "")


def _model(config: RunConfig) -> str:
    model = config.model
    name = model.path or "trained from scratch"
    known = parameters(model)
    text = f"{name}, {count(known)} parameters" if known else name
    shape = known_architecture(config.model)
    if config.train.lora is not None and shape is not None:
        trained = adapter_parameters(shape, config.train.lora)
        text += f", {count(trained)} of them trained (adapters of rank {config.train.lora.rank})"
    return text


def _data(config: RunConfig, source: Source, sets: DataSize | None) -> str:
    name = config.data.source if isinstance(config.data.source, str) else source.name
    if sets is None:
        return f"{name}, size known once it is read"
    each = f"{sets.sets:,} sets × {sets.responses} responses"
    tokens = f"about {count(sets.tokens)} tokens (prompt {sets.prompt_tokens}, response {sets.response_tokens})"
    sampled = ", sampled from the policy" if samples(config) else ""
    return f"{name}: {each}{sampled}, {tokens}" + (" a round" if config.rounds > 1 else "")


def _training(config: RunConfig, sets: DataSize | None) -> str:
    train = config.train
    group = config.launcher.processes * config.launcher.nodes
    together = train.settled.sequence_parallel
    share = math.ceil(train.global_batch * together / group)
    of_set, budget = 1 if sets is None else sets.tokens // sets.sets, train.settled.row_tokens
    at_once = max(1, min(share, train.micro_batch, budget // of_set))
    cut = " in pieces" if of_set > budget else ""
    stage = memory.effective_stage(train, train.settled.zero_stage, group)
    members = f"{group} process{'es' if group > 1 else ''}"
    members = members if together == 1 else f"{group // together} × {together} processes"
    rates = ", ".join(f"{config.lr_of(number):g}" for number in range(1, config.rounds + 1))
    text = (
        f"{train.global_batch} sets per step = {members} × {at_once} "
        f"× {math.ceil(share / at_once)} accumulated{cut}, {train.precision.name}, ZeRO {stage}, lr {rates}"
    )
    if sets is None:
        return text
    steps = f"{optimizer_steps(train, sets.sets):,} optimizer steps"
    return f"{steps}{f' × {config.rounds} rounds' if config.rounds > 1 else ''}, {text}"


def _reference(config: RunConfig, objects: Objects, shape: Architecture | None, sets: DataSize | None) -> str:
    if not objects.loss.needs_reference:
        return "none: the loss needs none, so no reference forward is run"
    newest = config.rounds > 1 and config.regime.reference is RoundReference.newest
    start = "each round's starting policy" if newest else "the starting policy"
    text = config.model.reference or start
    if shape is None or sets is None:
        return text
    held = train.lora.quantization if (train := config.train).lora is not None and same_reference(config) else None
    return f"{text}, {_forwarded(config, train, shape, sets, held)}"


def _in_4_bits(config: RunConfig) -> bool:
    return config.train.lora is not None and config.train.lora.quantization is not None


def _evaluation(config: RunConfig, shape: Architecture, sets: DataSize) -> str:
    """Of a policy that was trained in 4 bits and is evaluated in the run's precision, with its adapters merged."""
    train = replace(config.train, micro_batch=config.evaluate.batch)
    return f"the trained policy, whole in {train.precision.name}, {_forwarded(config, train, shape, sets, None)}"


def _forwarded(
    config: RunConfig, train: TrainConfig, shape: Architecture, sets: DataSize, held: Quantization | None
) -> str:
    """What a process takes that forwards a frozen policy's sets, how its weights lie, and whether it does not fit."""
    tokens = memory.micro_batch_tokens(train, sets.prompt_tokens, sets.response_tokens, sets.responses)
    group, room, device = config.launcher.processes * config.launcher.nodes, room_of(config), planned_device(config)
    most = None if room is None else room.memory
    together = train.settled.sequence_parallel
    needed = memory.frozen_memory(shape, train.precision, tokens, device, held, group, most, together)
    text = f"about {size(needed)} a process"
    width = 2 if train.precision is Precision.bf16 else 4
    if not memory.held_whole(memory.weight_bytes(shape, width, held), device, held, group, most):
        text += ", its weights in shards over all of them"
    return text if most is None or needed <= most else f"{text}, which does not fit {size(most)}"


def _downloads(config: RunConfig, source: Source) -> list[str]:
    wanted = [config.model.path, config.model.tokenizer, config.model.reference, *source.reads.values()]
    wanted += [node["path"] for node in (config.partition,) if isinstance(node.get("path"), str)]
    if samples(config):
        wanted += [node["path"] for node in scorer_nodes(config).values() if isinstance(node.get("path"), str)]
    return [name for name in dict.fromkeys(wanted) if name is not None and not is_local(name, DATA_SUFFIXES)]


def time_line(config: RunConfig, expected: Forecast, sets: DataSize) -> str:
    """Arithmetic and seconds of a step, seconds in all, and whether bfloat16 would be much faster."""
    arithmetic = f"{number(expected.work.flops / 1e12)} TFLOP a step and process"
    if expected.seconds is None:
        return f"{arithmetic}; this machine's rates could not be measured, its device is busy"
    a_round = optimizer_steps(config.train, sets.sets) * expected.seconds
    text = f"{arithmetic}, about {step_duration(expected.seconds)} on {expected.machine}"
    text += f", {duration(a_round)} a round" if config.rounds > 1 else ""
    text += f", {duration(config.rounds * a_round)} in all"
    if config.launcher.device is not None:
        group = config.launcher.processes * config.launcher.nodes
        tokens = min(config.train.global_batch, sets.sets) * sets.tokens / sets.sets / group
        text += f", {tokens / expected.seconds:,.0f} tokens a second and card"
    if expected.bf16_speedup < WORTH_SAYING:
        return text
    return f"{text}; products in bf16 run {expected.bf16_speedup:.1f} times as fast on it (train.precision=bf16)"


def _trains(config: RunConfig, expected: Forecast, sets: DataSize) -> Part:
    """The training's part in the hours."""
    assert expected.seconds is not None
    a_round = optimizer_steps(config.train, sets.sets) * expected.seconds
    return Part("training", "", a_round, config.rounds * a_round)


def _forwards(config: RunConfig, card: Card, shape: Architecture, sets: DataSize, heldout: int | None) -> Part:
    """The reference's, which forwards every response once, those to held-out prompts too."""
    rate = card.rate(config.train.precision) * config.launcher.processes * config.launcher.nodes
    a_round = forward_flops(shape, replace(sets, sets=sets.sets + (heldout or 0))) / rate
    return Part("reference", "", a_round, config.rounds * a_round)


def _memory(config: RunConfig, chosen: memory.Memory, shape: Architecture, sets: DataSize) -> str:
    train = config.train
    group = config.launcher.processes * config.launcher.nodes
    device = planned_device(config)
    at_once, scored = memory.tokens_at_once(train, sets, device), memory.scored_at_once(train, sets)
    found = memory.stages(shape, train, group, *at_once, device=device, scored=scored, nodes=config.launcher.nodes)
    others = [one for one in found if one.stage != chosen.stage]
    text = f"about {size(chosen.device)} a process with ZeRO {chosen.stage}"
    if (card := named_card(config)) is not None:
        fits = "fits" if chosen.device <= card.memory else "does not fit"
        text += f", which {fits} the card's {size(card.memory)}"
    text += f" (weights {size(chosen.weights)}, gradients {size(chosen.gradients)}, optimizer {size(chosen.optimizer)}"
    text += f", activations {size(chosen.activations)}, head {size(chosen.logits)}"
    text += f", gradients on their way {size(chosen.buckets)}" if chosen.buckets else ""
    text += f", checkpoint {size(chosen.checkpoint)}" if chosen.checkpoint else ""
    text += f", libraries {size(chosen.libraries)})" if chosen.libraries else ")"
    text += f", and {size(chosen.host)} of host memory" if chosen.host else ""
    text += "".join(f"{'; ' if m is others[0] else ', '}ZeRO {m.stage} {size(m.device)}" for m in others)
    needs_more = chosen.loading + chosen.libraries > chosen.device
    return text + (f"; {size(chosen.loading)} while it loads" if needs_more else "")
