"""A run's stages and how they hang together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from mpo.cache.artifacts import Stage, Store


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
