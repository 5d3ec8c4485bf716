"""Prompts with what responses and scores the source has, or its demonstrations."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Task
from mpo.data.sources.mixture import Part as MixedPart
from mpo.data.sources.mixture import Rows
from mpo.stages.nodes import partition

Given = TypeVar("Given")


class Part(Enum):
    """What is asked of a source."""

    sets = "sets"
    demonstrations = "demonstrations"  # what a policy from scratch is tuned on


@dataclass(frozen=True)
class Config:
    """``source``: the ``_target_`` node of a source class; None for a file or hub set, which is among the inputs.
    ``parts``, ``total``, ``heldout_rows``: of a mixture; a part's ``path`` is its name, under which its file or hub set
    is among the inputs, and parts are a list because their order counts. ``rounds``: that share the prompts. Otherwise
    as :class:`mpo.config.schema.DataConfig`."""

    source: dict[str, Any] | None = None
    parts: list[MixedPart] = field(default_factory=list)
    total: int | None = None
    heldout_rows: Rows | None = None
    part: Part = Part.sets
    rounds: int = 1
    layout: str = "auto"
    split: str = "train"
    score_field: str | None = None
    heldout_split: str | None = None
    heldout: float = 0.0
    fraction: float = 1.0
    limit: int | None = None
    split_seed: int = 0
    max_skipped_share: float = 0.0
    needs_responses: bool = False
    needs_scores: bool = False
    contrasts: bool = False
    allow_targets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """``binning``: how the scores will be binned, where that can be looked at before anything is tokenised."""

    binning: partition.Config | None = None


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """A file or hub set, or those of a mixture's parts by name, and perhaps another one whose sets are held out."""

    source: File | Hub | None = None
    heldout_source: File | Hub | None = None
    parts: dict[str, File | Hub] = field(default_factory=dict)


PARTS = "parts"
"""Fact of a mixture: for each part its weight, and how many of its sets were read and taken."""

TASK = Task("data", Config, Settings, Inputs)
