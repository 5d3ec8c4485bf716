"""Log-probs of one prompt under a policy, for samplers that load it by other means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Nothing, Task
from mpo.config.training import Precision

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``precision``: of the policy's weights and arithmetic, the sampler's."""

    precision: Precision
    chat_template: str | None
    trust_remote_code: bool
    template_arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``prompts``: the first of them is the known one. ``tokenizer``: another one than the policy's own."""

    prompts: Given
    policy: Given | File | Hub
    tokenizer: File | Hub | None = None


TASK = Task("canary", Config, Nothing, Inputs)
