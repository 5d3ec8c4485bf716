"""The part of a comparison page that is about a sweep: its settings in order, the best one, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpo.errors import ConfigError
from mpo.evaluate.records import Estimate
from mpo.report.best import Best, best_of
from mpo.report.curves import Drawn
from mpo.report.objective import objective
from mpo.report.records import STOPPED_BEHIND, RunReport
from mpo.report.surfaces import surface_figures
from mpo.report.sweep_record import Outcome, SweepRecord, outcomes
from mpo.track.units import number

LEADERS = 8
"""Settings whose training curves are laid over one another: as many as there are colours."""


@dataclass(frozen=True)
class SweepSection:
    """What the template shows; ``rows`` best first, those that are not complete last; ``apart`` by their number."""

    title: str
    axes: tuple[str, ...]
    rows: tuple[Outcome, ...]
    apart: dict[int, float | None]
    best: Best | None
    sentence: str
    doubts: tuple[str, ...]
    errors: str
    figures: list[Drawn]
    leaders: frozenset[str]
    """Folder names of the members of the best settings, whose training curves are shown."""


def sweep_section(record: SweepRecord, runs: Sequence[RunReport], figures: Path) -> SweepSection:
    """The section of the sweep ``record``; its pictures go to ``figures``."""
    found = outcomes(record, {run.folder.name: run for run in runs})
    best = best_of(found, record)
    title, start = _of_metric(record, runs)
    rest = [each for each in found if not each.complete]
    return SweepSection(
        title=title,
        axes=record.axes,
        rows=tuple([*(best.ranked if best else ()), *rest]),
        apart={o.number: far for o, far in zip(best.ranked, best.apart, strict=True)} if best else {},
        best=best,
        sentence=_sentence(record, best, title) if best else "",
        doubts=tuple([*_doubts(best, rest), *_behind(runs)]) if best else (),
        errors=_errors(found, record),
        figures=surface_figures(record, found, best, title, start, figures),
        leaders=frozenset(name for o in (best.ranked[:LEADERS] if best else ()) for name in record.members(o.number)),
    )


def _of_metric(record: SweepRecord, runs: Sequence[RunReport]) -> tuple[str, float | None]:
    """What people call the metric, and its value before training where all runs agree on it."""
    estimates: list[tuple[str, Estimate]] = []
    for run in runs:
        try:
            wanted = objective(run.evaluation, record.metric)
        except ConfigError:
            continue
        estimates += [(name, each) for name, each in run.measures.items() if each.about == wanted.about]
    starts = {base.value for _, each in estimates for base in each.baselines if base.name == "starting policy"}
    return estimates[0][0] if estimates else record.metric, starts.pop() if len(starts) == 1 else None


def _sentence(record: SweepRecord, best: Best, title: str) -> str:
    setting = ", ".join(f"{key} = {value}" for key, value in zip(record.axes, best.outcome.setting, strict=True))
    end = "highest" if record.direction == "maximize" else "lowest"
    mean = number(best.outcome.mean, best.outcome.error)
    return f"The {end} {title} of {len(best.ranked)} settings: {mean} at {setting}."


def _doubts(best: Best, rest: Sequence[Outcome]) -> list[str]:
    lines = []
    others = len(best.ranked) - 1
    one, two = best.others_within(1), best.others_within(2)
    if others and one is not None and two is not None:
        lines.append(
            f"Of the {others} others {one} lie within one standard error of the difference, {two} within two: "
            "the sweep does not tell those from the best."
        )
    elif others:
        lines.append("How far apart the settings are is not known: the metric has no standard error, and each one run.")
    if best.expected is not None:
        lines.append(
            f"The best of {len(best.ranked)} owes part of its lead to luck. Tried again, expect "
            f"{number(best.expected.value)} rather than {number(best.outcome.mean)} ({best.expected.how})."
        )
    if rest:
        lines.append(f"{len(rest)} settings have a run without a value and are not ranked.")
    return lines


def _behind(runs: Sequence[RunReport]) -> list[str]:
    count = sum(STOPPED_BEHIND in run.data_facts for run in runs)
    return [f"{count} of {len(runs)} trainings were behind the median of the others and ended early."] if count else []


def _errors(found: Sequence[Outcome], record: SweepRecord) -> str:
    if any(len(each.values) > 1 for each in found):
        return "Mean ± standard error over seeds, whose standard deviation within settings is pooled over all settings."
    return "± is the standard error of a run's own evaluation; how training varies with its seed is not in it."
