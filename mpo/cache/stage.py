"""One node of a run's graph: what it is, what it reads, and where its code runs. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

Config = TypeVar("Config")
Settings = TypeVar("Settings")
Inputs = TypeVar("Inputs")


class Placement(Enum):
    """Where a stage's code runs."""

    here = "this process"  # cheap and without a model: in the orchestrator's own process
    process = "one process"
    group = "the launcher's processes"  # which form a torch.distributed group
    replicas = "the launcher's processes side by side"  # each with a model of its own, see mpo.stages.replicas

    @property
    def distributed(self) -> bool:
        """Whether the launcher's number of processes and machines applies to it."""
        return self in (Placement.group, Placement.replicas)


@dataclass(frozen=True)
class File:
    """A file or folder from outside, as an input: its content counts, not where it lies."""

    path: str


@dataclass(frozen=True)
class Hub:
    """A model or data set on a hub, as an input."""

    name: str
    revision: str | None = None


@dataclass(frozen=True)
class Nothing:
    """Settings or inputs of a task that has none."""


@dataclass(frozen=True)
class Stage:
    """One node of a run's graph. Built by :meth:`Task.stage`, which checks the types of its records.

    Args:
        name: unique within the run, e.g. ``round2/train``.
        task: module in :mod:`mpo.stages` whose ``run(context)`` builds the directory.
        config: all of the configuration that ``task`` reads and that can change what it writes.
        settings: what ``task`` reads beside it that cannot change what it writes (how often it checkpoints, say).
        inputs: a record whose fields are a :class:`Stage`, :class:`File` or :class:`Hub`, dictionaries of them, or None
            where that input is not needed.
        placement: where it runs.
        resumable: keep a half-built directory for the next attempt (the task continues from it).
    """

    name: str
    task: str
    config: Any = field(default_factory=dict)
    settings: Any = field(default_factory=Nothing)
    inputs: Any = field(default_factory=Nothing)
    placement: Placement = Placement.process
    resumable: bool = False

    @property
    def given(self) -> dict[str, Stage | File | Hub]:
        """All inputs by name; those of a dictionary ``d`` as ``d@key``."""
        return dict(_given(self.inputs))

    @property
    def stages(self) -> dict[str, Stage]:
        """Inputs that are stages."""
        return {name: each for name, each in self.given.items() if isinstance(each, Stage)}

    @property
    def files(self) -> dict[str, str]:
        """Paths of inputs from outside."""
        return {name: each.path for name, each in self.given.items() if isinstance(each, File)}

    @property
    def hubs(self) -> dict[str, Hub]:
        """Inputs that are named on a hub."""
        return {name: each for name, each in self.given.items() if isinstance(each, Hub)}


@dataclass(frozen=True)
class Task(Generic[Config, Settings, Inputs]):
    """A kind of stage: the types of what it reads, and how it runs unless a stage of it says otherwise.

    Args:
        name: its module in :mod:`mpo.stages`.
        config: see :class:`Stage`; a dataclass without torch.
        settings: likewise.
        inputs: a dataclass, generic in what stands for a stage: a :class:`Stage` in the graph, its folder in the task.
    """

    name: str
    config: type[Config]
    settings: type[Settings]
    inputs: type[Inputs]
    placement: Placement = Placement.process
    resumable: bool = False

    def stage(
        self, name: str, config: Config, settings: Settings, inputs: Any, placement: Placement | None = None
    ) -> Stage:
        """A stage of this kind."""
        return Stage(name, self.name, config, settings, inputs, placement or self.placement, self.resumable)


def input_fields(inputs: Any) -> Iterator[tuple[str, Any]]:
    """Fields of a record of inputs, or items of a mapping."""
    if is_dataclass(inputs):
        for each in fields(inputs):
            yield each.name, getattr(inputs, each.name)
    else:
        assert isinstance(inputs, Mapping)
        yield from inputs.items()


def _given(inputs: Any) -> Iterator[tuple[str, Stage | File | Hub]]:
    for name, value in input_fields(inputs):
        if isinstance(value, Mapping):
            for key, each in value.items():
                yield f"{name}@{key}", each
        elif value is not None:
            yield name, value
