"""Checkpoints of a training run: complete or absent, and resumed exactly."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from mpo.cache.checksums import Damaged, HashedFile, check_file, read_sealed, sealed
from mpo.config.schema import FREE, TrainConfig
from mpo.errors import UserError
from mpo.losses import Loss
from mpo.policy.devices import broadcast_from_rank0
from mpo.train.engine import Engine
from mpo.train.files import load_tensors, save_tensors
from mpo.train.random_state import random_state, restore_random_state

STATE, METRICS = "state.json", "metrics.jsonl"
UNFINISHED = "tmp-"


def fingerprint(config: TrainConfig, loss: Loss, data: str, indices: Sequence[int], seed: int) -> str:
    """Names everything that a continued run must share with its checkpoint, the number of processes left out."""
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    names = [type(one).__name__ for one in (loss, *loss.parts())]
    content = [settings, names, asdict(loss), data, list(indices), seed]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=_plain).encode()).hexdigest()


@dataclass(frozen=True)
class Position:
    """Where a run stands: ``step`` steps are done and ``metrics`` bytes of metrics.jsonl belong to them. ``best``: the
    step whose policy is exported if no later one is better, 0 where that is the last one."""

    step: int
    metrics: int
    best: int = 0


class Checkpoints:
    """The folder of a run's checkpoints, ``step-000120`` each, every file of them with its checksum.

    Args:
        folder: made where it is missing.
        settings: :func:`fingerprint` of the run.
        keep: newest ones that are kept, two at least: if one is damaged, the one before it is taken. What was
            the best at each of them is kept too.
        metrics: the run's metrics file, of which a checkpoint has a copy.
        warn: gets a line, in the first process, for every damaged checkpoint.
    """

    def __init__(self, folder: Path, settings: str, keep: int, metrics: Path, warn: Callable[[str], None]) -> None:
        self.folder, self.settings, self.keep, self.metrics, self.warn = folder, settings, max(keep, 2), metrics, warn
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, engine: Engine, position: Position) -> None:
        """Write a checkpoint under a temporary name, then rename. All processes take part."""
        target = self.of(position.step)
        unfinished = self.folder / f"{UNFINISHED}{target.name}"
        if engine.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
        engine.wait()
        files = engine.save(unfinished)
        random_name = f"random-{engine.rank}.pt"
        files[random_name] = save_tensors(random_state(), unfinished / random_name)
        if engine.rank == 0:
            with self.metrics.open("rb") as source, HashedFile(unfinished / METRICS) as copy:
                copy.write(source.read(position.metrics))
            files[METRICS] = copy.checksum
        written = engine.gather([f"{checksum} {name}" for name, checksum in files.items()])
        if engine.rank == 0:
            checksums = {name: checksum for checksum, name in (line.split(" ", 1) for line in written)}
            record = asdict(position) | {"settings": self.settings, "world_size": engine.world_size, "files": checksums}
            (unfinished / STATE).write_text(json.dumps(sealed(record)))
            unfinished.rename(target)
            kept = self.complete()[-self.keep :]
            best = [self.of(_record(one)[0].get("best", 0)) for one in kept]
            for old in self.complete():
                if old not in (*kept, *best):
                    shutil.rmtree(old)
        engine.wait()

    def of(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / f"step-{step:06d}"

    def complete(self) -> list[Path]:
        """Finished checkpoints, damaged or not, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def resume(self, engine: Engine) -> Position:
        """Load the newest undamaged checkpoint; without one the position is the start. All processes take part.

        Damaged ones are reported and removed: the run will write them again.

        Raises:
            UserError: it was made with other settings or another number of processes, or cannot be read.
        """
        if engine.rank == 0:
            for unfinished in self.folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(unfinished, ignore_errors=True)
        known = broadcast_from_rank0(self.complete())
        while known:
            newest = known.pop()
            record, damage = broadcast_from_rank0(_record(newest))
            if not damage:
                self._check_settings(newest, record, engine.world_size)
                damage = next(iter(engine.gather(_damage(newest, record["files"], engine))), "")
            best = record.get("best", 0)
            if not damage and best and (damage := self._damage_of_best(engine, best)):
                damage = f"it needs the best one, {damage}"
            if not damage:
                self._load(engine, newest, record["metrics"])
                return Position(record["step"], record["metrics"], best)
            if engine.rank == 0:
                instead = f"training goes on from {known[-1].name}" if known else "training starts again"
                self.warn(f"checkpoint {newest.name} is damaged ({damage}); {instead}")
                shutil.rmtree(newest, ignore_errors=True)
            engine.wait()
        return Position(0, 0)

    def load_best(self, engine: Engine, step: int) -> None:
        """Load the weights of the best checkpoint. All processes take part.

        Raises:
            UserError: it is damaged.
        """
        if damage := self._damage_of_best(engine, step):
            remedy = "give the same command again: training goes on from a checkpoint that is whole"
            raise UserError(f"the best checkpoint is damaged: {damage}", "train.keep_best", remedy)
        with _only_tensors(self.of(step)):
            engine.load(self.of(step))

    def _damage_of_best(self, engine: Engine, step: int) -> str:
        folder = self.of(step)
        record, damage = broadcast_from_rank0(_record(folder))
        damage = damage or next(iter(engine.gather(_damage(folder, record["files"], engine))), "")
        return f"{folder.name} ({damage})" if damage else ""

    def carry_on(self, engine: Engine, state: Path) -> None:
        """Load weights, optimizer and schedule from the last checkpoint of another training. All processes take part.

        Raises:
            UserError: it was made by another number of processes, is damaged, or holds what no checkpoint does.
        """
        record, damage = broadcast_from_rank0(_record(state))
        if not damage:
            if record["world_size"] != engine.world_size:
                what = (
                    f"the optimizer's state is of {record['world_size']} processes, but there are {engine.world_size}"
                )
                raise UserError(what, str(state), "use as many as the round before")
            damage = next(iter(engine.gather(_damage(state, record["files"], engine))), "")
        if damage:
            raise UserError(f"the optimizer's state is damaged ({damage})", str(state), "remove its stage's folder")
        with _only_tensors(state):
            engine.load(state)

    def _check_settings(self, checkpoint: Path, record: dict[str, Any], world_size: int) -> None:
        remedy = "use the settings that it was made with, or remove the folder to start again"
        if record["world_size"] != world_size:
            what = f"checkpoint of {record['world_size']} processes, but there are {world_size}"
            raise UserError(what, checkpoint.name, remedy)
        if record["settings"] != self.settings:
            raise UserError("checkpoint of other training settings or data", checkpoint.name, remedy)

    def _load(self, engine: Engine, checkpoint: Path, metrics: int) -> None:
        with _only_tensors(checkpoint):
            engine.load(checkpoint)
            restore_random_state(load_tensors(checkpoint / f"random-{engine.rank}.pt"))
        if engine.rank == 0:
            content = (checkpoint / METRICS).read_bytes()
            if not self.metrics.is_file() or self.metrics.read_bytes()[:metrics] != content:
                self.metrics.write_bytes(content)


@contextlib.contextmanager
def _only_tensors(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except pickle.UnpicklingError as error:
        what = "a checkpoint's file holds more than tensors and plain values, and was not read"
        raise UserError(what, str(checkpoint), "remove this folder, which may run code elsewhere") from error


def _record(checkpoint: Path) -> tuple[dict[str, Any], str]:
    """What a checkpoint says of itself, or what is wrong with that."""
    try:
        return read_sealed(checkpoint / STATE), ""
    except Damaged as damage:
        return {}, str(damage)


def _damage(checkpoint: Path, files: Mapping[str, str], engine: Engine) -> list[str]:
    """What is wrong with the files that it falls to this process to look at, each one to one process."""
    found = []
    for name in sorted(files)[engine.rank :: engine.world_size]:
        try:
            check_file(checkpoint / name, files[name])
        except Damaged as damage:
            found.append(str(damage))
    return found


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"{type(value).__name__} has no place in a fingerprint")
