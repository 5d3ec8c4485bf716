"""What a stage reads, and how it is written down for the process that runs it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from mpo.cache.artifacts import Store, read_json, write_json
from mpo.cache.stage import File, Hub, Stage, Task, input_fields
from mpo.plain import from_plain, to_plain
from mpo.track.progress import ProgressWriter

Config = TypeVar("Config")
Settings = TypeVar("Settings")
Inputs = TypeVar("Inputs")

CONTEXT_FILE = "stage.json"
PROGRESS_FILE = "progress.json"
EVALUATION_FILE = "evaluation.json"
WARNINGS_FILE = "warnings.txt"


@dataclass(frozen=True)
class StageContext(Generic[Config, Settings, Inputs]):
    """Arguments of a stage: the records of its task, see :mod:`mpo.stages.nodes`.

    Args:
        task: module of :mod:`mpo.stages`.
        config: what it reads of the configuration.
        settings: what it reads beside it.
        inputs: folders of other stages; files and hub names from outside.
        output: the directory to fill.
    """

    task: str
    config: Config
    settings: Settings
    inputs: Inputs
    output: Path

    @classmethod
    def of(cls, stage: Stage, store: Store) -> StageContext[Any, Any, Any]:
        """What ``stage`` will read, with the folders of its inputs in ``store``."""

        def folder(given: Any) -> Any:
            if isinstance(given, Stage):
                return store.path(given)
            if isinstance(given, Mapping):
                return {key: folder(each) for key, each in given.items()}
            return given

        inputs = type(stage.inputs)(**{name: folder(value) for name, value in input_fields(stage.inputs)})
        return StageContext(stage.task, stage.config, stage.settings, inputs, store.work_path(stage))

    def write(self) -> Path:
        """Write the context into the output directory; returns the file."""
        path = self.output / CONTEXT_FILE
        write_json(
            path,
            {
                "task": self.task,
                "config": to_plain(self.config),
                "settings": to_plain(self.settings),
                "inputs": {name: _as_json(value) for name, value in input_fields(self.inputs)},
            },
        )
        return path

    @classmethod
    def read(cls, path: Path) -> StageContext[Any, Any, Any]:
        """Read what :meth:`write` wrote."""
        raw = read_json(path)
        task: Task[Any, Any, Any] = importlib.import_module(f"mpo.stages.nodes.{raw['task']}").TASK
        return StageContext(
            raw["task"],
            from_plain(task.config, raw["config"]),
            from_plain(task.settings, raw["settings"]),
            task.inputs(**{name: _from_json(value) for name, value in raw["inputs"].items()}),
            path.parent,
        )

    def progress(self) -> ProgressWriter:
        """The writer of this stage's progress; one process of a group uses it."""
        return ProgressWriter(self.output / PROGRESS_FILE)

    def warn(self, text: str) -> None:
        """Have the run's console say ``text``; one process of a group does so."""
        with open(self.output / WARNINGS_FILE, "a", encoding="utf-8") as file:
            file.write(" ".join(text.split()) + "\n")

    @property
    def rank(self) -> int:
        """This process's place in its group."""
        return int(os.environ.get("RANK", "0"))

    @property
    def world_size(self) -> int:
        """Processes of the group."""
        return int(os.environ.get("WORLD_SIZE", "1"))


def _as_json(given: Any) -> Any:
    if isinstance(given, Path):
        return {"folder": str(given)}
    if isinstance(given, File):
        return {"file": given.path}
    if isinstance(given, Hub):
        return {"hub": given.name, "revision": given.revision}
    if isinstance(given, Mapping):
        return {"each": {key: _as_json(value) for key, value in given.items()}}
    return None


def _from_json(raw: Any) -> Any:
    if raw is None:
        return None
    if "folder" in raw:
        return Path(raw["folder"])
    if "file" in raw:
        return File(raw["file"])
    if "hub" in raw:
        return Hub(raw["hub"], raw["revision"])
    return {key: _from_json(value) for key, value in raw["each"].items()}
