"""Scores to bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mpo.cache.stage import Nothing, Placement, Task
from mpo.config.schema import ScoreTransformConfig

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``partition``: node of a partition class. ``score``, ``heldout_score``: names of the scores to sort by.
    ``needs_*``, ``contrasts``, ``score_range``: what the loss declares."""

    partition: dict[str, Any]
    score: str
    heldout_score: str
    transform: ScoreTransformConfig
    seed: int
    contrasts: bool
    needs_scores: bool
    needs_sides: bool
    score_range: list[float] | None
    max_skipped_share: float
    allow_targets: list[str]


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``prepare``: tokenised sets with their scores. ``embed``: how alike their responses are, for a partition that
    reads it."""

    prepare: Given
    embed: Given | None = None


TASK = Task("partition", Config, Nothing, Inputs, placement=Placement.here)
