"""What a continued training must share with its checkpoint, as one name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum

import numpy as np

from mpo.config.training import FREE, TrainConfig
from mpo.losses import Loss


def fingerprint(config: TrainConfig, loss: Loss, data: str, indices: Sequence[int], seed: int) -> str:
    """Names everything that a continued run must share with its checkpoint, the number of processes left out."""
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    names = [type(one).__name__ for one in (loss, *loss.parts())]
    content = [settings, names, asdict(loss), data, list(indices), seed]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"{type(value).__name__} has no place in a fingerprint")
