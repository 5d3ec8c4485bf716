"""How alike the responses of each set are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from mpo.cache.stage import File, Hub, Nothing, Task

Given = TypeVar("Given")


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``sets``: with responses. ``encoder``: what embeds their texts."""

    sets: Given
    encoder: File | Hub


TASK = Task("embed", Nothing, Nothing, Inputs)
