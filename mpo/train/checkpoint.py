"""Checkpoints of a training run: complete or absent, and resumed exactly."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpo.config.schema import TrainConfig
from mpo.errors import UserError
from mpo.logprobs.devices import agreed
from mpo.losses import Loss
from mpo.train.engine import Engine

STATE = "state.json"
FREE = frozenset({"keep_checkpoints", "checkpoint_every", "micro_tokens"})
"""Settings that may change between a checkpoint and its continuation."""


def fingerprint(config: TrainConfig, loss: Loss, data: str, indices: Sequence[int], seed: int) -> str:
    """Names everything that a continued run must share with its checkpoint, the number of processes left out."""
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    content = [settings, type(loss).__name__, asdict(loss), data, list(indices), seed]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=_plain).encode()).hexdigest()


@dataclass(frozen=True)
class Position:
    """Where a run stands: ``step`` steps are done and ``metrics`` bytes of metrics.jsonl belong to them."""

    step: int
    metrics: int


class Checkpoints:
    """The folder of a run's checkpoints, ``step-000120`` each.

    Args:
        folder: made where it is missing.
        settings: :func:`fingerprint` of the run.
        keep: newest ones that are kept.
    """

    def __init__(self, folder: Path, settings: str, keep: int) -> None:
        self.folder, self.settings, self.keep = folder, settings, max(keep, 1)
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, engine: Engine, position: Position) -> None:
        """Write a checkpoint under a temporary name, then rename. All processes take part."""
        target = self.folder / f"step-{position.step:06d}"
        unfinished = self.folder / f"tmp-{target.name}"
        if engine.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
        engine.wait()
        engine.save(unfinished)
        torch.save(_random_state(), unfinished / f"random-{engine.rank}.pt")
        engine.wait()
        if engine.rank == 0:
            state = asdict(position) | {"settings": self.settings, "world_size": engine.world_size}
            (unfinished / STATE).write_text(json.dumps(state))
            unfinished.rename(target)
            for old in self.complete()[: -self.keep]:
                shutil.rmtree(old)
        engine.wait()

    def complete(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if (path / STATE).is_file())

    def resume(self, engine: Engine) -> Position:
        """Load the newest complete checkpoint; without one the position is the start. All processes take part.

        Raises:
            UserError: it was made with other settings or another number of processes.
        """
        newest = agreed(max(self.complete(), default=None))
        if newest is None:
            return Position(0, 0)
        state = json.loads((newest / STATE).read_text())
        remedy = "use the settings that it was made with, or remove the folder to start again"
        if state["world_size"] != engine.world_size:
            made, now = state["world_size"], engine.world_size
            raise UserError(f"checkpoint of {made} processes, but there are {now}", newest.name, remedy)
        if state["settings"] != self.settings:
            raise UserError("checkpoint of other training settings or data", newest.name, remedy)
        engine.load(newest)
        _restore_random_state(torch.load(newest / f"random-{engine.rank}.pt", weights_only=True))
        return Position(state["step"], state["metrics"])


def _random_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {"python": random.getstate(), "numpy": (name, torch.from_numpy(np.asarray(keys)), *rest)}
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return state | {"torch": torch.get_rng_state(), "cuda": cuda}


def _restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"{type(value).__name__} has no place in a fingerprint")
