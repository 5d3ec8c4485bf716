"""A model from scratch: a tokenizer and random weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import Nothing, Task

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``architecture``: values of a transformers configuration. ``vocab_size``: of a tokenizer trained on the sets.
    ``source``: node of the source class whose own tokenizer it is instead."""

    architecture: dict[str, Any]
    seed: int
    vocab_size: int | None = None
    source: dict[str, Any] | None = None
    allow_targets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``sets``: texts to train a tokenizer on."""

    sets: Given


TASK = Task("init", Config, Nothing, Inputs)
