"""Checkpoints of a training run: complete or absent, and resumed exactly."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mpo.cache.checksums import Damaged, check_file, read_sealed
from mpo.config.training import TrainConfig
from mpo.errors import UserError
from mpo.policy.devices import broadcast_from_rank0
from mpo.train.checkpoint_writer import STATE, Folder, Writer, remove, remove_unfinished
from mpo.train.engine import Engine
from mpo.train.files import load_tensors
from mpo.train.random_state import random_state, restore_random_state

CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        step: steps that are done.
        metrics: bytes of metrics.jsonl that belong to them.
        best: step whose policy is exported if no later one is better; 0: the last one's.
        finished: no step is left, so that ``best``'s policy is exported.
    """

    step: int
    metrics: int
    best: int = 0
    finished: bool = False


def policy_folder(checkpoints: Path, step: int) -> Path:
    """Where the policy of a step is kept."""
    return checkpoints / f"policy-{step:06d}"


class Checkpoints:
    """The folders of a run's checkpoints, every file of them with its checksum.

    ``step-000120`` has what training goes on from, and no more than the place in the metrics where it is finished;
    ``policy-000120`` what is exported: weights alone, unless another training goes on with its optimizer.

    Args:
        folder: made where it is missing.
        settings: :func:`fingerprint` of the run.
        config: says when checkpoints are due and how many are kept, two at least: if one is damaged, the one before it
            is taken. The policy that was the best at each of them is kept too.
        metrics: the run's metrics file, of which a checkpoint has a copy.
        warn: gets a line, in the first process, for every damaged checkpoint.
        keep_state: another training goes on with the exported policy's optimizer.
    """

    def __init__(
        self,
        folder: Path,
        settings: str,
        config: TrainConfig,
        metrics: Path,
        warn: Callable[[str], None],
        keep_state: bool = False,
    ) -> None:
        self.folder, self.settings, self.config, self.metrics = folder, settings, config, metrics
        self.warn, self.keep_state = warn, keep_state
        self.seconds = 0.0  # that the training has waited for checkpoints
        self._writer, self._last = Writer(), time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def due(self, step: int) -> bool:
        """Whether one is due after so many steps."""
        return self.config.checkpoint_every > 0 and step % self.config.checkpoint_every == 0

    def overdue(self) -> bool:
        """Whether one is due by this process's clock, which on a slow disk waits until the last one is complete."""
        minutes = self.config.checkpoint_minutes
        return minutes > 0 and self._writer.idle and time.monotonic() - self._last >= 60 * minutes

    def save(self, engine: Engine, position: Position, step: bool, policy: bool) -> None:
        """Copy what goes into a checkpoint, which is written while training goes on. All processes take part.

        The one before is waited for.

        Args:
            step: the folder to go on from.
            policy: that of the policy.

        Raises:
            OSError: this one or the one before could not be written.
        """
        began, folders = time.monotonic(), list[Folder]()
        self._writer.wait()
        if policy:
            folders.append(self._add(policy_folder(self.folder, position.step), engine, position))
            if self.keep_state:
                engine.save(folders[-1].add)
            else:
                engine.save_weights(folders[-1].add)
        if step:
            folders.append(self._add(self.of(position.step), engine, position))
            if engine.rank == 0:
                folders[-1].add_beginning(self.metrics, position.metrics)
            if not position.finished:
                engine.save(folders[-1].add)
                folders[-1].add(random_state(), f"random-{engine.rank}.pt")
            self._last = began
        self._writer.start(folders, engine.rank, engine.world_size, lambda: self._remove_old(position.best))
        if not self.config.checkpoint_async:
            self._writer.wait()
        self.seconds += time.monotonic() - began

    def _add(self, path: Path, engine: Engine, position: Position) -> Folder:
        record = asdict(position) | {"settings": self.settings, "world_size": engine.world_size}
        return Folder(path, record, self.config.checkpoint_async)

    def check(self) -> None:
        """Raise OSError if what is written in the background could not be."""
        self._writer.check()

    def finish(self, engine: Engine) -> None:
        """Wait until the last checkpoint is complete. All processes take part.

        Raises:
            OSError: it could not be written.
        """
        began = time.monotonic()
        self._writer.wait()
        engine.wait()
        self.seconds += time.monotonic() - began

    def _remove_old(self, best: int) -> None:
        """Those that are not kept, and the policies that no kept one, nor the run as it stands, would export."""
        kept = self.complete()[-max(self.config.keep_checkpoints, 2) :]
        best_ones = {best, *(_record(one)[0].get("best", 0) for one in kept)}
        kept += [policy_folder(self.folder, step) for step in best_ones]
        for old in (*self.complete(), *self.folder.glob("policy-*")):
            if old not in kept:
                remove(old)

    def of(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / f"step-{step:06d}"

    def complete(self) -> list[Path]:
        """Finished checkpoints, damaged or not, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def resume(self, engine: Engine) -> Position:
        """Load the newest undamaged checkpoint; without one the position is the start. All processes take part.

        Damaged ones are reported and removed: the run will write them again. Where training is finished nothing is
        loaded: see :meth:`load_policy`.

        Raises:
            UserError: it was made with other settings or another number of processes, or cannot be read.
        """
        if engine.rank == 0:
            remove_unfinished(self.folder)
        position = self._newest(engine)
        if engine.rank == 0:
            for policy in self.folder.glob("policy-*"):
                if policy > policy_folder(self.folder, position.step):  # its step will be done again
                    remove(policy)
        self._last = time.monotonic()
        return position

    def _newest(self, engine: Engine) -> Position:
        known = broadcast_from_rank0(self.complete())
        while known:
            newest = known.pop()
            record, damage = broadcast_from_rank0(_record(newest))
            if not damage:
                self._check_settings(newest, record, engine.world_size)
                damage = next(iter(engine.gather(_damage(newest, record["files"], engine))), "")
            if not damage and record["best"] and (damage := self._damage_of_policy(engine, record["best"])):
                damage = f"it needs {damage}"
            if not damage:
                position = Position(*(record[field.name] for field in fields(Position)))
                self._load(engine, newest, position)
                return position
            if engine.rank == 0:
                instead = f"training goes on from {known[-1].name}" if known else "training starts again"
                self.warn(f"checkpoint {newest.name} is damaged ({damage}); {instead}")
                shutil.rmtree(newest, ignore_errors=True)
            engine.wait()
        return Position(0, 0)

    def load_policy(self, engine: Engine, step: int) -> None:
        """Load the policy of a step, to be exported. All processes take part.

        Raises:
            UserError: it is damaged.
        """
        if damage := self._damage_of_policy(engine, step):
            remedy = "give the same command again: training goes on from a checkpoint that is whole"
            raise UserError(f"the policy to export is damaged: {damage}", "checkpoints", remedy)
        folder = policy_folder(self.folder, step)
        with _only_tensors(folder):
            if self.keep_state:
                engine.load(folder)
            else:
                engine.load_weights(folder)

    def _damage_of_policy(self, engine: Engine, step: int) -> str:
        folder = policy_folder(self.folder, step)
        record, damage = broadcast_from_rank0(_record(folder))
        damage = damage or next(iter(engine.gather(_damage(folder, record["files"], engine))), "")
        return f"{folder.name} ({damage})" if damage else ""

    def carry_on(self, engine: Engine, state: Path) -> None:
        """Load weights, optimizer and schedule that another training has kept. All processes take part.

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

    def _load(self, engine: Engine, checkpoint: Path, position: Position) -> None:
        if not position.finished:
            with _only_tensors(checkpoint):
                engine.load(checkpoint)
                restore_random_state(load_tensors(checkpoint / f"random-{engine.rank}.pt"))
        if engine.rank == 0:
            content = (checkpoint / METRICS).read_bytes()
            if not self.metrics.is_file() or self.metrics.read_bytes()[: position.metrics] != content:
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
