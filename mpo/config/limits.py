"""Limits of single values, as one table: a key outside its range is an error before anything is loaded. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mpo.config.schema import RunConfig, TrainConfig
from mpo.errors import ConfigError

INF = math.inf


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; an open end is left out."""

    low: float
    high: float = INF
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        if self.high == INF:
            return f"above {self.low:g}" if self.open_low else f"of at least {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


POSITIVE = Range(0, open_low=True)
NOT_NEGATIVE = Range(0)
COUNT = Range(1)
SHARE = Range(0, 1)
SHARE_USED = Range(0, 1, open_low=True)
BELOW_ONE = Range(0, 1, open_high=True)

SEED = Range(0, 10**9)

TRAIN = {
    "lr": POSITIVE,
    "warmup_ratio": BELOW_ONE,
    "epochs": COUNT,
    "max_steps": COUNT,
    "global_batch": COUNT,
    "micro_batch": COUNT,
    "micro_tokens": COUNT,
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": BELOW_ONE,
    "adam_beta2": BELOW_ONE,
    "adam_eps": POSITIVE,
    "clip": NOT_NEGATIVE,
    "zero_stage": Range(0, 3),
    "checkpoint_every": COUNT,
    "keep_checkpoints": Range(2),
    "lora.rank": COUNT,
    "lora.alpha": POSITIVE,
}
RUN = {
    "seed": SEED,
    "rounds": COUNT,
    "round_lr": POSITIVE,
    "model.beta": POSITIVE,
    "model.parameters": COUNT,
    "model.stop_token_ids": NOT_NEGATIVE,
    "model.scratch.vocab_size": COUNT,
    "model.scratch.seed": SEED,
    "data.heldout": NOT_NEGATIVE,
    "data.fraction": SHARE_USED,
    "data.limit": COUNT,
    "data.max_prompt_tokens": COUNT,
    "data.max_tokens": Range(2),
    "data.max_skipped_share": SHARE,
    "data.score.scale": POSITIVE,
    "data.score.noise_sigma": NOT_NEGATIVE,
    "data.testbed.demonstrations": COUNT,
    "data.testbed.prompts": COUNT,
    "data.testbed.heldout_prompts": COUNT,
    "data.expected_sets": COUNT,
    "data.expected_responses": COUNT,
    "data.expected_prompt_tokens": COUNT,
    "data.expected_response_tokens": COUNT,
    "sample.n": COUNT,
    "sample.temperature": POSITIVE,
    "sample.top_p": SHARE_USED,
    "sample.max_new_tokens": COUNT,
    "sample.batch": COUNT,
    "sample.batch_tokens": COUNT,
    "evaluate.batch": COUNT,
    "evaluate.prompts": COUNT,
    "evaluate.samples": COUNT,
    "evaluate.temperatures": POSITIVE,
    "launcher.processes": COUNT,
    "launcher.nodes": COUNT,
    "launcher.node_rank": NOT_NEGATIVE,
    "launcher.threads": COUNT,
    **{f"train.{key}": limit for key, limit in TRAIN.items()},
    **{f"model.scratch.sft.{key}": limit for key, limit in TRAIN.items()},
}


def check_limits(config: RunConfig) -> None:
    """Raise ConfigError for the first value outside its range; a list's entries are checked one by one."""
    for key, limit in RUN.items():
        for value in _values(config, key):
            if value not in limit:
                raise ConfigError(f"{value} is out of range", key, f"give a number {limit}")


def trainings(config: RunConfig) -> Iterable[tuple[str, TrainConfig]]:
    """Every training of the run with its config key: a scratch model's own fine-tuning, then ``train``."""
    if config.model.scratch is not None:
        yield "model.scratch.sft", config.model.scratch.sft
    yield "train", config.train


def _values(config: RunConfig, key: str) -> list[float]:
    node: object = config
    for name in key.split("."):
        node = getattr(node, name)
        if node is None:
            return []
    if isinstance(node, list):
        return node
    assert isinstance(node, (int, float)), key
    return [node]
