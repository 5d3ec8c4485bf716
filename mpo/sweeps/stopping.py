"""Which members of a sweep are unpromising: the median stopping rule (Golovin et al. 2017, Google Vizier)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mpo.config.schema import RunConfig
from mpo.errors import ConfigError
from mpo.sweeps.space import Space
from mpo.train.best import REWARD

FEWEST = 4
"""Members that have to be done before others are compared with them."""
OF_EVALUATIONS = ("rounds", "train.keep_best", "train.evaluate_every", "train.global_batch", "train.epochs")
"""Keys of which another value makes the n-th evaluation another one."""
OF_ANY_LOSS = ("heldout/accuracy", REWARD)
"""Metrics whose scale does not depend on the loss."""
WHERE = "sweep.stop_behind"


def check_comparable(space: Space, first: RunConfig) -> None:
    """Raise ConfigError where evaluations of one member say nothing about another.

    Args:
        first: a member.
    """
    keys = [axis.key for axis in space.axes]
    if first.rounds > 1:
        raise ConfigError("it supports one round only", WHERE, "leave it out, or set rounds=1")
    for key in keys:
        if key in OF_EVALUATIONS:
            raise ConfigError(f"members with another {key} cannot be compared during training", WHERE, "leave it out")
    metric = first.train.keep_best
    of_loss = [key for key in keys if key == "loss" or key.startswith("loss.")]
    if of_loss and metric is not None and metric not in OF_ANY_LOSS:
        what = f"the scale of {metric} depends on {of_loss[0]}"
        raise ConfigError(what, WHERE, f"leave it out, or set train.keep_best={OF_ANY_LOSS[0]}")


def medians(members: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> list[float]:
    """Of each evaluation, the median over members of their mean of the metric up to there.

    One that ended earlier counts with its last mean. Empty where fewer than :data:`FEWEST` have a value.

    Args:
        members: records of each one's training.
        metric: as in ``train.keep_best``.
    """
    running = [means for records in members if (means := _running_means(records, metric))]
    if len(running) < FEWEST:
        return []
    length = max(map(len, running))
    return [statistics.median(means[min(at, len(means) - 1)] for means in running) for at in range(length)]


def _running_means(records: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """Up to each evaluation the mean of its values so far; evaluations without a finite one are left out."""
    values = [value for row in records if (value := row.get(metric)) is not None and math.isfinite(value)]
    return [math.fsum(values[: at + 1]) / (at + 1) for at in range(len(values))]
