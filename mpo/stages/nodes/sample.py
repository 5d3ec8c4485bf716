"""Responses drawn from a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Nothing, Placement, Task
from mpo.config.schema import SampleConfig, ThinkingConfig

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``sampler``: node of a sampler class. ``splits``: whose prompts are asked. ``round`` of ``rounds``: the share of
    the training prompts, chosen with ``seed_rounds``. ``prompts``: the first so many only. ``chat_template``: its text,
    in place of the tokenizer's. ``thinking``: marks at which responses are parted."""

    sampler: dict[str, Any]
    sample: SampleConfig
    seed: int
    splits: list[str]
    round: int
    rounds: int
    seed_rounds: int
    prompts: int | None
    allow_targets: list[str]
    stop_token_ids: list[int]
    max_prompt_tokens: int
    max_skipped_share: float
    chat_template: str | None
    trust_remote_code: bool
    template_arguments: dict[str, Any] = field(default_factory=dict)
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``tokenizer``: another one than the policy's own. ``canary``: a prompt with the policy's log-probs."""

    prompts: Given
    policy: Given | File | Hub
    tokenizer: File | Hub | None = None
    canary: Given | None = None


TASK = Task("sample", Config, Nothing, Inputs, placement=Placement.replicas, resumable=True)
