"""Limits of single values, as one table: a key outside its range is an error before anything is loaded. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mpo.config.schema import RunConfig
from mpo.config.training import TrainConfig
from mpo.errors import ConfigError

INF = math.inf


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; an open end is left out. ``why``: what else would happen, for the message."""

    low: float
    high: float = INF
    open_low: bool = False
    open_high: bool = False
    why: str = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and value != INF  # math.isfinite takes no integer beyond the floats

    def __str__(self) -> str:
        why = f": {self.why}" if self.why else ""
        if self.high == INF:
            return f"{'above' if self.open_low else 'of at least'} {self.low:g}{why}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}{why}"


SHARE = Range(0, 1)
SHARE_USED = Range(0, 1, open_low=True)
BELOW_ONE = Range(0, 1, open_high=True)
COUNT = Range(1, 10**9)
SIZE = Range(1, 10**6)
"""Of what is held in memory at once, or counted one by one."""
FACTOR = Range(1e-6, 1e6)
"""Of factors and temperatures of losses: beyond it float32 overflows on ordinary log-probs."""
TEMPERATURE = Range(1e-3, 100)
SEED = Range(0, 10**9)
SIGNED = Range(-(10**9), 10**9)
"""Of seeds that are hashed."""
RESPONSES = Range(1, 10**4)
TOKENS = Range(1, 10**7)
VOCABULARY = Range(1, 10**7)

TRAIN = {
    "lr": Range(1e-12, 10),
    "warmup_ratio": BELOW_ONE,
    "epochs": Range(1, 10**4),
    "max_steps": COUNT,
    "global_batch": SIZE,
    "micro_batch": SIZE,
    "micro_tokens": TOKENS,
    "sequence_parallel": Range(1, 1024),
    "weight_decay": Range(0, 100),
    "adam_beta1": BELOW_ONE,
    "adam_beta2": BELOW_ONE,
    "adam_eps": Range(1e-15, 1),
    "clip": Range(0, 1e6),
    "zero_stage": Range(0, 3),
    "activation_checkpointing": Range(0, 1000),
    "checkpoint_every": Range(0, COUNT.high),
    "checkpoint_minutes": Range(0, 10**6),
    "keep_checkpoints": Range(2, 1000, why="the newest may turn out damaged, then the one before it is taken"),
    "evaluate_every": Range(0, COUNT.high),
    "reward_prompts": Range(0, COUNT.high),
    "stop_after": COUNT,
    "stop_behind": Range(-1e9, 1e9),
    "lora.rank": Range(1, 10**4),
    "lora.alpha": FACTOR,
}
RUN = {
    "seed": SEED,
    "rounds": Range(1, 100),
    "round_lr": Range(1e-6, 1000),
    "round_beta": Range(1e-6, 1000),
    "regime.kept": RESPONSES,
    "model.beta": FACTOR,
    "model.parameters": Range(1, 10**13),
    "model.stop_token_ids": Range(0, VOCABULARY.high),
    "model.scratch.vocab_size": VOCABULARY,
    "model.scratch.seed": SEED,
    "data.heldout": Range(0, 10**9),
    "data.fraction": Range(1e-6, 1),
    "data.limit": COUNT,
    "data.split_seed": SIGNED,
    "data.max_prompt_tokens": TOKENS,
    "data.max_tokens": Range(2, TOKENS.high),
    "data.max_skipped_share": SHARE,
    "data.score.scale": FACTOR,
    "data.score.noise_sigma": Range(0, 1e6),
    "data.score.noise_seed": SIGNED,
    "data.expected_sets": Range(1, 10**12),
    "data.expected_heldout": Range(1, 10**12),
    "data.expected_responses": RESPONSES,
    "data.expected_prompt_tokens": TOKENS,
    "data.expected_response_tokens": TOKENS,
    "sample.n": RESPONSES,
    "sample.temperature": TEMPERATURE,
    "sample.top_p": Range(1e-6, 1),
    "sample.max_new_tokens": TOKENS,
    "sample.redraws": Range(0, 100),
    "evaluate.batch": SIZE,
    "evaluate.prompts": COUNT,
    "evaluate.samples": RESPONSES,
    "evaluate.temperatures": TEMPERATURE,
    "sweep.trials": Range(1, 10**4),
    "sweep.seed": SEED,
    "launcher.processes": Range(1, 1024),
    "launcher.nodes": Range(1, 10**4),
    "launcher.node_rank": Range(0, 10**4),
    "launcher.threads": Range(1, 1024),
    **{f"train.{key}": limit for key, limit in TRAIN.items()},
    **{f"model.scratch.sft.{key}": limit for key, limit in TRAIN.items()},
}
LISTS = {
    "model.stop_token_ids": 1000,
    "round_lr": 100,
    "round_beta": 100,
    "evaluate.temperatures": 20,
    "train.stop_behind": 10**5,
    "model.scratch.sft.stop_behind": 10**5,
}
"""Most entries of a list: each temperature is two stages of every round."""


def check_limits(config: RunConfig) -> None:
    """Raise ConfigError for the first value outside its range; a list's entries are checked one by one."""
    for key, limit in RUN.items():
        values = _values(config, key)
        if len(values) > LISTS.get(key, 1):
            raise ConfigError(f"{len(values)} values", key, f"give at most {LISTS[key]}")
        for value in values:
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
