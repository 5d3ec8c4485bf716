"""After a multirun: one page that compares its members. Light to import: Hydra loads it for every command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


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


def compare_finished() -> None:
    """Compare the members that finished; of fewer than two, or without a multirun, there is nothing to compare."""
    folder, ComparisonPage.folder = ComparisonPage.folder, None
    members = [] if folder is None else sorted(path.parent for path in folder.glob("*/result.json"))
    if folder is None or len(members) < 2:
        return
    from mpo.report.comparison import write_comparison_page
    from mpo.report.records import RunReport

    page = write_comparison_page(folder, [RunReport.load(member) for member in members])
    print(f"comparison of {len(members)} runs  {page}", file=sys.stderr)
