"""After a multirun: one page that compares its members. Light to import: Hydra loads it for every command."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from mpo.track.streams import say


class AlreadyReported(Exception):
    """A member of a multirun ended with exit status ``code`` and has said why; the other members go on."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


class ComparisonPage(Callback):
    """Writes ``comparison.html`` into the multirun's folder from its members' results."""

    folder: ClassVar[Path | None] = None
    """Of the multirun that has begun and was not compared yet."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder: Hydra calls nobody at the end of a multirun in which a member failed."""
        ComparisonPage.folder = Path(config.hydra.sweep.dir).resolve()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare what finished."""
        compare_finished()


def quiet_reported() -> None:
    """Keep Hydra from a line of its own about a member that has said itself why it failed."""
    job_return: Any = JobReturn
    hydras_own: property = job_return.return_value
    if getattr(hydras_own.fget, "reported", False):  # this process has called it before
        return

    def value(job: Any) -> Any:
        if isinstance(job._return_value, AlreadyReported):
            raise job._return_value
        return hydras_own.__get__(job)

    value.reported = True  # type: ignore[attr-defined]
    job_return.return_value = property(value, hydras_own.fset)


def compare_finished() -> None:
    """Compare the members that finished; of fewer than two, or without a multirun, there is nothing to compare."""
    folder, ComparisonPage.folder = ComparisonPage.folder, None
    found = [] if folder is None else [path.parent for path in folder.glob("*/result.json")]
    members = sorted(found, key=lambda member: (len(member.name), member.name))  # they are numbered
    if folder is None or len(members) < 2:
        return
    from mpo.report.comparison import write_comparison_page
    from mpo.report.records import RunReport
    from mpo.report.sweep_record import SweepRecord

    runs = [RunReport.load(member) for member in members]
    page = write_comparison_page(folder, runs, SweepRecord.load(folder))
    say(f"comparison of {len(members)} runs  {page}")
