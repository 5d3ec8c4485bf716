"""Response sets as token ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Nothing, Task
from mpo.config.schema import SftResponses

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``flatten``: sets of one response each, for supervised fine-tuning; the best is so by the ``score`` of that
    name. ``marks``: of thoughts, where the answer alone trains."""

    max_prompt_tokens: int
    max_tokens: int
    max_skipped_share: float
    flatten: SftResponses | None
    score: str
    chat_template: str | None
    trust_remote_code: bool
    template_arguments: dict[str, Any] = field(default_factory=dict)
    marks: list[str] | None = None


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``policy``: whose tokenizer it is, unless another one is given."""

    sets: Given
    policy: Given | File | Hub
    tokenizer: File | Hub | None = None


TASK = Task("prepare", Config, Nothing, Inputs)
