"""TensorBoard event files; the one place that imports it, and only when a run is logged there."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mpo.errors import ConfigError
from mpo.track.logger import Identity, Logger, Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
FLUSH_S = 10
"""Seconds until what is logged can be seen."""


class TensorBoardRun(Run):
    """Event files of one run."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See :meth:`Run.log`."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """See :meth:`Run.table`; a text in Markdown."""
        lines = [columns, ["---"] * len(columns), *rows]
        self._writer.add_text(name, "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))

    def image(self, name: str, path: Path) -> None:
        """See :meth:`Run.image`."""
        from matplotlib.image import imread

        self._writer.add_image(name, imread(path)[..., :3], dataformats="HWC")

    def summary(self, values: Mapping[str, Any]) -> None:
        """See :meth:`Run.summary`; numbers are scalars too, under ``summary/``."""
        self.table("summary", ["", "value"], list(values.items()))
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"summary/{name}", value)

    def finish(self, failed: bool = False) -> None:
        """See :meth:`Run.finish`."""
        self._writer.close()


@dataclass(frozen=True)
class TensorBoardLogger(Logger):
    """TensorBoard, with event files under ``tensorboard/`` in the run's folder."""

    def check(self) -> None:
        """See :meth:`Logger.check`."""
        if importlib.util.find_spec("tensorboard") is None:
            what = "the package tensorboard is not installed"
            raise ConfigError(what, "logger", "pip install 'mpo[loggers]', or choose another logger")

    def open(self, identity: Identity) -> Run:
        """See :meth:`Logger.open`. What an earlier attempt has written into the same folder is hidden by this one,
        which logs all of it again."""
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(identity.folder / FOLDER), purge_step=0, flush_secs=FLUSH_S)
        written = yaml.safe_dump(dict(identity.config), sort_keys=False, allow_unicode=True)
        indented = "".join(f"    {line}\n" for line in written.splitlines())
        writer.add_text("configuration", indented)
        return TensorBoardRun(writer)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", "<br>")
