"""One measure of a trained policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Task
from mpo.config.training import Precision

Given = TypeVar("Given")


@dataclass(frozen=True)
class Models:
    """How the policies are run; ``before_is_reference``: the policy before training is the training's reference."""

    loss: dict[str, Any]
    precision: Precision
    compile: bool | None
    trust_remote_code: bool
    before_is_reference: bool


@dataclass(frozen=True)
class Config:
    """``measure``: node of a measure class. ``models``: where it needs the policies themselves. ``score``: name of the
    true rewards that samples have."""

    measure: dict[str, Any]
    seed: int
    score: str | None = None
    models: Models | None = None
    allow_targets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """Most sets and tokens of a forward pass. ``options``: of the measure, those that cannot change what it finds, and
    where its files lie. ``key``: its configuration key, for errors. ``verdicts``: folder of kept verdicts.
    ``sequence_parallel``: neighbouring processes that share the row of a forward pass."""

    batch: int
    micro_tokens: int
    options: dict[str, Any] = field(default_factory=dict)
    key: str = "evaluate.measures"
    verdicts: str | None = None
    sequence_parallel: int = 1


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """What the measure needs. ``policy``, ``before``: models; with the held-out part of ``sets`` (texts), ``prepare``
    and ``partition``, and of ``reference``. ``start_samples``, ``policy_samples``, ``answers``, ``start_answers``: by
    temperature. ``start_results``, ``policy_results``: what was measured on each policy by itself. ``files``: those
    that its options name, by option. ``models``: those that nodes within it name."""

    policy: Given | None = None
    before: Given | File | Hub | None = None
    sets: Given | None = None
    prepare: Given | None = None
    partition: Given | None = None
    reference: Given | None = None
    start_samples: dict[str, Given] = field(default_factory=dict)
    policy_samples: dict[str, Given] = field(default_factory=dict)
    answers: dict[str, Given] = field(default_factory=dict)
    start_answers: dict[str, Given] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)
    models: dict[str, File | Hub] = field(default_factory=dict)
    start_results: Given | None = None
    policy_results: Given | None = None


TASK = Task("evaluate", Config, Settings, Inputs)
