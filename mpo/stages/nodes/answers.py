"""A policy's answers to a benchmark's questions, at one temperature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Nothing, Placement, Task
from mpo.config.schema import SampleConfig, ThinkingConfig
from mpo.evaluate.questions import Question

Given = TypeVar("Given")


@dataclass(frozen=True)
class Config:
    """``sampler``: node of a sampler class. ``sample``: the decoding. ``seeds``: an answer each. ``chat_template``: its
    text, in place of the tokenizer's. ``thinking``: marks at which answers are parted."""

    sampler: dict[str, Any]
    sample: SampleConfig
    questions: list[Question]
    seeds: list[int]
    allow_targets: list[str]
    stop_token_ids: list[int]
    chat_template: str | None
    trust_remote_code: bool
    template_arguments: dict[str, Any] = field(default_factory=dict)
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``tokenizer``: another one than the policy's own. ``canary``: a prompt with the policy's log-probs."""

    policy: Given | File | Hub
    tokenizer: File | Hub | None = None
    canary: Given | None = None


TASK = Task("answers", Config, Nothing, Inputs, placement=Placement.replicas, resumable=True)
