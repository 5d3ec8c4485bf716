"""What a measure finds on one policy by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Task

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``measure``: node of a measure class. ``chat_template``: its text, in place of the tokenizer's. ``thought_end``:
    the mark after which an answer begins, for a policy that thinks."""

    measure: dict[str, Any]
    chat_template: str | None
    template_arguments: dict[str, Any]
    thought_end: str | None
    trust_remote_code: bool
    allow_targets: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """``options``: of the measure, those that cannot change what it finds, and where its files lie. ``key``: its
    configuration key, for errors."""

    options: dict[str, Any] = field(default_factory=dict)
    key: str = "evaluate.measures"


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``tokenizer``: another one than the policy's own. ``files``: those that the measure's options name, by option."""

    policy: Given | File | Hub
    tokenizer: File | Hub | None = None
    files: dict[str, File] = field(default_factory=dict)


TASK = Task("measure_policy", Config, Settings, Inputs, resumable=True)
