"""What a run's training will need: seconds per step, memory of a process; printed before it, compared after it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mpo.config.schema import RunConfig
from mpo.config.training import Precision
from mpo.planning.cards import UTILISATION, named_card
from mpo.planning.compute import Work, step_work
from mpo.planning.data_size import DataSize
from mpo.planning.machine import Machine, this_machine
from mpo.planning.memory import Memory, scored_at_once, tokens_at_once, training_memory
from mpo.planning.sizes import Architecture
from mpo.track.units import percent


@dataclass(frozen=True)
class Forecast:
    """Of one training of the run.

    Attributes:
        memory: of one process.
        work: of one process in an optimizer step.
        seconds: that it takes on ``machine``; None where its rates could not be measured.
        machine: what was measured, or the named card and the share of its peak that is planned with.
        bf16_speedup: rate of products in bfloat16 over the configured precision's.
    """

    memory: Memory
    work: Work
    seconds: float | None
    machine: str
    bf16_speedup: float


def planned_device(config: RunConfig) -> str:
    """What the training's processes run on, ``cpu`` or ``cuda``.

    A plan in bfloat16 for a group of processes is one for GPUs, also where it is printed on a machine that has none.
    """
    if config.launcher.device is not None:
        return "cuda"
    import torch

    launcher = config.launcher
    group = launcher.processes * launcher.nodes > 1 and config.train.precision is Precision.bf16
    return "cuda" if torch.cuda.is_available() or (config.dry_run and group) else "cpu"


def forecast(config: RunConfig, shape: Architecture, sets: DataSize, cache: Path) -> Forecast:
    """The forecast for training a model of this shape on these sets, with processes like this machine's or on a named
    card each."""
    train, launcher = config.train, config.launcher
    group = launcher.processes * launcher.nodes
    threads = launcher.threads or max(1, len(os.sched_getaffinity(0)) // launcher.processes)

    device = planned_device(config)
    at_once, scored = tokens_at_once(train, sets, device), scored_at_once(train, sets)
    expected = training_memory(shape, train, group, *at_once, device=device, scored=scored, nodes=launcher.nodes)
    work = step_work(shape, train, sets, group)
    if (card := named_card(config)) is not None:
        seconds, title = work.flops / card.rate(train.precision), f"{card.title} at {percent(UTILISATION)} of its peak"
        return Forecast(expected, work, seconds, title, card.bf16_flops / card.peak(train.precision))

    def rates(precision: Precision) -> Machine | None:
        return this_machine(cache, shape.hidden, shape.intermediate, precision, threads)

    machine, bf16 = rates(train.precision), rates(Precision.bf16)
    if machine is None or bf16 is None:
        return Forecast(expected, work, None, "", 1.0)
    speedup = bf16.flops_per_second / machine.flops_per_second
    return Forecast(expected, work, work.seconds(machine), machine.name, speedup)
