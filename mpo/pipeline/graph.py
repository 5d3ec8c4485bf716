"""A run's stages and how they hang together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mpo.cache.artifacts import Store
from mpo.cache.stage import File, Hub, Stage

Model = Stage | File | Hub
"""A stage that makes a policy, or a model from outside."""


@dataclass(frozen=True)
class Policy:
    """A model that stages load. ``untrained``: the same with its tokenizer and weights of no use, where that is there
    earlier."""

    model: Model
    untrained: Model | None = None

    @property
    def tokenizer(self) -> Model:
        """What to take its tokenizer from."""
        return self.untrained or self.model


@dataclass(frozen=True)
class Round:
    """The stages of one pass from response sets to an evaluated policy. ``drawn``: sampling and scoring, where it
    does."""

    drawn: list[Stage]
    prepare: Stage
    partition: Stage
    reference: Stage | None
    train: Stage
    measures: list[Stage]

    @property
    def before_training(self) -> list[Stage]:
        """What is measured on the starting policy: a benchmark without its questions fails before the training."""
        return [each.inputs.start_results for each in self.measures if each.inputs.start_results is not None]

    @property
    def stages(self) -> list[Stage]:
        """Those whose summaries say what was left out of it, in order."""
        embed = self.partition.inputs.embed
        return [*self.drawn, self.prepare, *([] if embed is None else [embed]), self.partition]


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
            for other in stage.stages.values():
                yield from walk(other)
            yield stage

        for one in self.rounds:
            for last in (*one.before_training, one.train, *one.measures):
                yield from walk(last)
