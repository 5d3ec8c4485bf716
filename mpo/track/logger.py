"""The contract of what a run is logged to beside its own folder. No torch."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpo.config.targets import build


@dataclass(frozen=True)
class Identity:
    """Which run it is.

    Args:
        name: for people.
        job_type: the regime's name.
        key: hexadecimal; the same for every attempt at the same run, so that a later one continues an earlier one.
        folder: of this attempt.
        config: the complete configuration, without folders of this machine.
    """

    name: str
    job_type: str
    key: str
    folder: Path
    config: Mapping[str, Any]


class Run(ABC):
    """An open run. Every attempt at a run logs all of it from the start, finished stages included."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at an optimizer step; a later training starts again at step 1, under other names."""

    @abstractmethod
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table, e.g. of sampled texts."""

    @abstractmethod
    def image(self, name: str, path: Path) -> None:
        """Log a picture file, a PNG."""

    @abstractmethod
    def summary(self, values: Mapping[str, Any]) -> None:
        """Log the run's final numbers and texts."""

    @abstractmethod
    def finish(self, failed: bool = False) -> None:
        """Write everything out and close the run."""


@dataclass(frozen=True)
class Logger(ABC):
    """Where runs are logged to; its fields are the options of a YAML in ``conf/logger``."""

    def check(self) -> None:  # noqa: B027 - most have nothing to check
        """Before anything is computed: raise ConfigError if it cannot be used here, for want of a package say."""

    @abstractmethod
    def open(self, identity: Identity) -> Run | None:
        """Open the run; None where it is not to be logged. Raises ConfigError if that cannot be done."""


class Loggers(Run):
    """A run logged to several places, or to none."""

    def __init__(self, runs: Sequence[Run] = ()) -> None:
        self.runs = list(runs)

    @classmethod
    def open(cls, loggers: Sequence[Logger], identity: Identity) -> Loggers:
        """Open the run everywhere; if one place refuses, those before it are closed again."""
        opened = cls()
        try:
            for logger in loggers:
                if (run := logger.open(identity)) is not None:
                    opened.runs.append(run)
        except BaseException:
            opened.finish(failed=True)
            raise
        return opened

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for run in self.runs:
            run.log(metrics, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for run in self.runs:
            run.table(name, columns, rows)

    def image(self, name: str, path: Path) -> None:
        for run in self.runs:
            run.image(name, path)

    def summary(self, values: Mapping[str, Any]) -> None:
        for run in self.runs:
            run.summary(values)

    def finish(self, failed: bool = False) -> None:
        with ExitStack() as all_of_them:  # also where one raises
            for run in self.runs:
                all_of_them.callback(run.finish, failed)


def run_key(name: str, fingerprints: Sequence[str]) -> str:
    """:attr:`Identity.key` of a run of this name whose stages have these fingerprints."""
    return hashlib.sha256("|".join([name, *fingerprints]).encode()).hexdigest()[:16]


def build_loggers(nodes: Mapping[str, Any], allow: Sequence[str]) -> list[Logger]:
    """The configured loggers; raises ConfigError as :func:`mpo.config.targets.build` does."""
    return [build(node, Logger, allow, f"logger.{name}") for name, node in nodes.items()]  # type: ignore[type-abstract]
