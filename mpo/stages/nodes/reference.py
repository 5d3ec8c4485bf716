"""Log-probs of a frozen reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from mpo.cache.stage import File, Hub, Placement, Task
from mpo.config.training import Precision, Quantization

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``mismatched``: also of mismatched pairs, for KTO's reference point of KL. ``quantization``: that of the weights
    under the training's adapters."""

    precision: Precision
    compile: bool | None
    mismatched: bool
    trust_remote_code: bool
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Settings:
    """Most sets and tokens of a forward pass, and neighbouring processes that share its row."""

    micro_batch: int
    micro_tokens: int
    sequence_parallel: int = 1


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``policy``: the reference."""

    prepare: Given
    policy: Given | File | Hub


TASK = Task("reference", Config, Settings, Inputs, placement=Placement.group, resumable=True)
