"""Plans of the runs of an experiment, without running any: does each compose, does it fit, how long would it take."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpo.experiments.cells import Cell
from mpo.experiments.composed import composed
from mpo.experiments.spec import Scale
from mpo.experiments.tables import Table
from mpo.track.units import duration

_UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
_DURATION = re.compile(r"([\d.,]+) (d|h|min|s)\b")
_WITHOUT = re.compile(r", without (.+), of which that is not known")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """``facts``: the plan's lines by their name; ``seconds``: on the cards it is planned for, None if not known;
    ``again``: another table has the run too."""

    cell: Cell
    facts: dict[str, str]
    seconds: float | None
    again: bool = False

    @property
    def length(self) -> str:
        """For people."""
        left_out = f" without {self.without}" if self.without else ""
        return "hours not known" if self.seconds is None else f"about {duration(self.seconds)}{left_out}"

    @property
    def without(self) -> str:
        """Parts of the run whose length is not known, so that ``seconds`` is less than it takes."""
        found = _WITHOUT.search(self.facts.get("hours", ""))
        return found.group(1) if found else ""

    @property
    def memory(self) -> str:
        """For people, without its parts."""
        return self.facts.get("memory", "memory not known").partition("(")[0].strip()

    @property
    def cards(self) -> int:
        """Cards that it is planned for; 0 where none is named."""
        first = self.facts.get("card", "0").partition(" ")[0]
        return int(first) if first.isdecimal() else 0


def plan(cell: Cell, device: str | None, folder: Path) -> PlannedRun:
    """The plan of one run, for ``launcher.device`` where it names a card.

    Raises:
        Exception: as ``python -m mpo.run`` does for a configuration that it refuses.
    """
    from mpo.pipeline.runner import run

    overrides = (*cell.overrides, "dry_run=true", *([f"launcher.device={device}"] if device else []))
    out = io.StringIO()
    config, choices = composed(overrides)
    with contextlib.redirect_stdout(out):
        run(config, folder, choices, overrides)
    facts = plan_lines(out.getvalue().splitlines())
    return PlannedRun(cell, facts, seconds_of(facts["hours"]) if "hours" in facts else None)


def plan_lines(lines: Sequence[str]) -> dict[str, str]:
    """The lines below "plan", by their first word."""
    found: dict[str, str] = {}
    below = list(lines)[list(lines).index("plan") + 1 :] if "plan" in lines else []
    for line in below:
        if not line.startswith("  "):
            break
        name, _, text = line.strip().partition("  ")
        found[name] = text.strip()
    return found


def seconds_of(hours: str) -> float | None:
    """Seconds of the whole run, from the plan's line on hours."""
    counted = hours.partition(";")[0].partition("= about ")[2]
    whole = re.search(r"([^,]+) in all", counted)
    found = _DURATION.findall(whole.group(1) if whole else counted.partition(",")[0])
    return sum(float(number.replace(",", "")) * _UNITS[unit] for number, unit in found) if found else None


def plan_page(
    planned: Mapping[str, Sequence[PlannedRun]], scale_name: str, scale: Scale, refused: Sequence[str] = ()
) -> str:
    """Every run of one replication with its hours and card-hours, in Markdown; ``refused``: those without a plan."""
    rows, total = [], 0.0
    for name, runs in planned.items():
        for one in runs:
            hours = None if one.seconds is None else one.seconds / 3600
            spent = 0.0 if hours is None or one.again else hours * one.cards
            total += spent
            least = "at least " if one.without else ""
            shown = ["–", "–"] if hours is None else [f"{least}{hours:.1f}", "shared" if one.again else f"{spent:.0f}"]
            label = " · ".join(part for part in (one.cell.block, one.cell.row, one.cell.value) if part)
            rows.append([name, label, *shown, one.memory.removeprefix("about ")])
    table = Table(["experiment", "run", "hours", "card-hours", "memory"], rows)
    device = scale.plan_for or "this machine"
    left_out = "".join(f"\n- not planned: {one}" for one in refused)
    return (
        f"# Plan at {scale.title}\n\n"
        f"Written by `python -m mpo.experiments tables scale={scale_name} dry_run=true`: planned for {device} from "
        "data sheets at stated utilisations (each run's plan says which), nothing was measured on one. Judging, "
        "downloads, loading and failures come on top.\n\n"
        f"**{total:,.0f} card-hours** for one replication of everything: at 2 dollars a card-hour about "
        f"{2 * total:,.0f} dollars. A run that several tables share counts once, but each run is planned as if "
        "nothing were cached: rows of one model share its samples, their scores and the reference's log-probs, so all "
        "of them together "
        f"take less.\n\n{table.markdown()}\n" + (f"{left_out}\n" if refused else "")
    )
