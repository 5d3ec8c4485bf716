"""A training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mpo.cache.stage import File, Hub, Placement, Task
from mpo.config.schema import SampleConfig, ThinkingConfig
from mpo.config.training import TrainConfig

Given = TypeVar("Given")


@dataclass(frozen=True)
class Rewards:
    """Of responses drawn during training: the scorer's node, how they are drawn, and the marks of thoughts."""

    scorer: dict[str, Any]
    decoding: SampleConfig
    thinking: ThinkingConfig


@dataclass(frozen=True)
class Config:
    """``loss``: node of a loss class. ``train``: what cannot change the result has its default. ``keep_state``: for a
    training that goes on with this one's optimizer. ``rewards``: where ``train.reward_prompts`` asks for them."""

    loss: dict[str, Any]
    train: TrainConfig
    seed: int
    processes: int
    stop_token_ids: list[int]
    policy_is_reference: bool
    chat_template: str | None
    trust_remote_code: bool
    allow_targets: list[str]
    template_arguments: dict[str, Any] = field(default_factory=dict)
    keep_state: bool = False
    rewards: Rewards | None = None


@dataclass(frozen=True)
class Settings:
    """``train``: as in the configuration, with what cannot change the result (:data:`mpo.config.training.FREE`);
    ``card``: for the model card."""

    train: TrainConfig
    card: dict[str, Any]


@dataclass(frozen=True)
class Inputs(Generic[Given]):
    """``policy``: where training starts. ``reference``: where the loss needs one. ``state``: the training whose
    optimizer this one goes on with, which made ``policy``. ``sets``: whose held-out prompts are answered."""

    prepare: Given
    partition: Given
    policy: Given | File | Hub
    reference: Given | None = None
    tokenizer: File | Hub | None = None
    state: Given | None = None
    sets: Given | None = None


TASK = Task("train", Config, Settings, Inputs, placement=Placement.group, resumable=True)
