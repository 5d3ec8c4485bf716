"""After a multirun: one page that compares its members. Light to import: Hydra loads it for every command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class ComparisonPage(Callback):
    """Writes ``comparison.html`` into the multirun's folder from its members' results."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare what finished; with fewer than two results there is nothing to compare."""
        folder = Path(config.hydra.sweep.dir).resolve()
        members = sorted(path.parent for path in folder.glob("*/result.json"))
        if len(members) < 2:
            return
        from mpo.report.comparison import write_comparison_page
        from mpo.report.records import RunReport

        page = write_comparison_page(folder, [RunReport.load(member) for member in members])
        print(f"comparison of {len(members)} runs  {page}", file=sys.stderr)
