"""Trackio's local store; the one place that imports it, and only when a run is logged there."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.errors import ConfigError
from mpo.track.logger import Identity, Logger, Run

if TYPE_CHECKING:
    import trackio

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")
"""Variables with which Trackio would send a run to another machine."""


class TrackioRun(Run):
    """A run in Trackio's store.

    Args:
        run: opened.
        there: records that the store has of an earlier attempt at the run; so many are not logged again.
    """

    def __init__(self, run: trackio.Run, there: int) -> None:
        self._run, self._there, self._logged = run, there, 0

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See :meth:`Run.log`. Trackio's own axis counts records, the optimizer's step is ``optimizer_step``."""
        if self._logged >= self._there:
            self._run.log({**metrics, "optimizer_step": step}, step=self._logged)
        self._logged += 1

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """See :meth:`Run.table`."""
        import pandas
        import trackio

        self._run.log({name: trackio.Table(dataframe=pandas.DataFrame(list(rows), columns=list(columns)))}, self._last)

    def image(self, name: str, path: Path) -> None:
        """See :meth:`Run.image`."""
        import trackio

        self._run.log({name: trackio.Image(str(path))}, self._last)

    def summary(self, values: Mapping[str, Any]) -> None:
        """See :meth:`Run.summary`; under ``summary/``."""
        self._run.log({f"summary/{name}": value for name, value in values.items()}, self._last)

    @property
    def _last(self) -> int:
        return max(self._logged - 1, 0)

    def finish(self, failed: bool = False) -> None:
        """See :meth:`Run.finish`."""
        import trackio

        with _silent():
            trackio.finish()  # of the module: it would finish its current run once more at the interpreter's end


@dataclass(frozen=True)
class TrackioLogger(Logger):
    """Trackio, in its store on this machine (``TRACKIO_DIR``); ``trackio show`` draws it. Nothing is sent anywhere."""

    project: str = "mpo"
    group: str | None = None

    def check(self) -> None:
        """See :meth:`Logger.check`."""
        if importlib.util.find_spec("trackio") is None:
            what = "the package trackio is not installed"
            raise ConfigError(what, "logger", "pip install 'mpo[loggers]', or choose another logger")
        for name in ELSEWHERE:
            if os.environ.get(name):
                what = f"the variable {name} would send the run to another machine"
                raise ConfigError(what, "logger", "unset it; after the run 'trackio sync' sends what you choose")

    def open(self, identity: Identity) -> Run:
        """See :meth:`Logger.open`."""
        with _silent():
            import trackio
            from trackio.sqlite_storage import SQLiteStorage

            name = f"{identity.name}-{identity.key[:8]}"
            try:
                with _offline():
                    run = trackio.init(
                        self.project,
                        name,
                        self.group,
                        config=dict(identity.config),
                        resume="allow",
                        embed=False,
                        auto_log_cpu=False,
                        auto_log_gpu=False,
                    )
                last = SQLiteStorage.get_max_step_for_run(self.project, name)
            except (ValueError, OSError) as error:
                what = f"Trackio did not start: {error}"
                raise ConfigError(what, "logger", "correct the project's name, or choose another logger") from error
        return TrackioRun(run, 0 if last is None else last + 1)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without Trackio's own lines on standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Without Trackio's question to the hub whose token this is."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
