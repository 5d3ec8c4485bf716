"""Scores of sampled responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Task
from mpo.config.schema import ThinkingConfig

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``scorers``, and ``heldout`` for the held-out sets: nodes of scorer classes by the name that their scores get.
    ``thinking``: with its marks the thought of a response is shown to them before the answer, if it is ``scored``."""

    scorers: dict[str, dict[str, Any]]
    heldout: dict[str, dict[str, Any]]
    allow_targets: list[str]
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)


@dataclass(frozen=True)
class Settings:
    """By the same names, the options of these nodes that change no score."""

    scorers: dict[str, dict[str, Any]] = field(default_factory=dict)
    heldout: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``sets``: with sampled responses. ``models``: those that scorers name by their ``path``, so that their content
    counts."""

    sets: Given
    models: dict[str, File | Hub] = field(default_factory=dict)


BY_RANK = "mean by rank"
"""Fact of a split: for each scorer the mean score of the best response, of the second best, and so on."""

MEANS = "means"
"""Fact of a split: what its scorers have found beside scores (:meth:`mpo.score.base.Scorer.take_means`)."""

TASK = Task("score", Config, Settings, Inputs, resumable=True)
