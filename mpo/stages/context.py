"""What a stage reads, and how it is written down for the process that runs it."""

from __future__ import annotations

import dataclasses
import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from mpo.cache.artifacts import read_json, write_json
from mpo.track.progress import ProgressWriter

T = TypeVar("T")

CONTEXT_FILE = "stage.json"
PROGRESS_FILE = "progress.json"
SUMMARY_FILE = "summary.json"
EVALUATION_FILE = "evaluation.json"
WARNINGS_FILE = "warnings.txt"


@dataclass(frozen=True)
class StageContext:
    """Arguments of a stage.

    Args:
        task: module of :mod:`mpo.stages`.
        config: the stage's slice of the configuration, plain values.
        inputs: complete directories of other stages, by name.
        files: files or folders from outside, by name.
        output: the directory to fill.
    """

    task: str
    config: dict[str, Any]
    inputs: dict[str, Path]
    files: dict[str, Path]
    output: Path

    def write(self) -> Path:
        """Write the context into the output directory; returns the file."""
        path = self.output / CONTEXT_FILE
        write_json(
            path,
            {
                "task": self.task,
                "config": self.config,
                "inputs": {name: str(value) for name, value in self.inputs.items()},
                "files": {name: str(value) for name, value in self.files.items()},
            },
        )
        return path

    @classmethod
    def read(cls, path: Path) -> StageContext:
        """Read what :meth:`write` wrote."""
        raw = read_json(path)
        return cls(
            task=raw["task"],
            config=raw["config"],
            inputs={name: Path(value) for name, value in raw["inputs"].items()},
            files={name: Path(value) for name, value in raw["files"].items()},
            output=path.parent,
        )

    def progress(self) -> ProgressWriter:
        """The writer of this stage's progress; one process of a group uses it."""
        return ProgressWriter(self.output / PROGRESS_FILE)

    def warn(self, text: str) -> None:
        """Have the run's console say ``text``; one process of a group does so."""
        with open(self.output / WARNINGS_FILE, "a", encoding="utf-8") as file:
            file.write(" ".join(text.split()) + "\n")

    def section(self, cls: type[T], key: str) -> T:
        """The part ``key`` of the config as an instance of its dataclass."""
        return from_plain(cls, self.config[key])

    @property
    def rank(self) -> int:
        """This process's place in its group."""
        return int(os.environ.get("RANK", "0"))

    @property
    def world_size(self) -> int:
        """Processes of the group."""
        return int(os.environ.get("WORLD_SIZE", "1"))


def to_plain(value: Any) -> Any:
    """A dataclass (or a nest of them) as JSON-able values; enums by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(cls: type[T], value: dict[str, Any]) -> T:
    """An instance of the dataclass ``cls`` from what :func:`to_plain` made of one."""
    merged = OmegaConf.merge(OmegaConf.structured(cls), value)
    made = OmegaConf.to_object(merged)
    assert isinstance(made, cls)
    return made
