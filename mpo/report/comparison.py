"""The page of several runs: what differs between them, their results over seeds, curves laid over one another."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from mpo.errors import DataError
from mpo.evaluate.records import Baseline, Estimate
from mpo.report.bars import Bar, column_bars, shared_baselines
from mpo.report.curves import overlaid_figures
from mpo.report.headline import label_and_rest
from mpo.report.html import write_page
from mpo.report.labels import differing_keys, labels_of, short, values_of
from mpo.report.page import PAGE
from mpo.report.records import RunReport
from mpo.report.sweep_page import sweep_section
from mpo.report.sweep_record import SweepRecord

COMPARISON_PAGE = "comparison.html"


@dataclass(frozen=True, slots=True)
class Member:
    """One run of the comparison: its values of the differing keys, and the way to its page ('' where it has none)."""

    run: RunReport
    values: tuple[str, ...]
    link: str


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in nothing but their seed, with each measure's mean and standard error over them."""

    values: tuple[str, ...]
    label: str
    seeds: tuple[int, ...]
    evaluation: dict[str, Estimate]


def write_comparison_page(out: Path, runs: Sequence[RunReport], sweep: SweepRecord | None = None) -> Path:
    """Writes ``out/comparison.html`` and ``out/figures/compare_*.png``; returns the page's path.

    With ``sweep``, whose members the runs are, the page begins with its settings.

    Raises:
        DataError: there is no run, or a metrics file of one is missing or broken.
    """
    if not runs:
        raise DataError("no runs to compare", str(out), "name the folder of at least one finished run")
    keys = differing_keys([run.config for run in runs])
    members = [Member(run, _values(run, keys), _link(out, run)) for run in runs]
    groups = group_over_seeds(runs, keys)
    label_of = {group.values: group.label for group in groups}
    seeds = max(len(group.seeds) for group in groups)
    baselines = baseline_rows(groups, _measures(runs))
    section = None if sweep is None else sweep_section(sweep, runs, out / "figures")
    drawn = [member for member in members if section is None or member.run.folder.name in section.leaders]
    return write_page(
        out / COMPARISON_PAGE,
        "comparison.html",
        sweep=section,
        scale=label_and_rest(runs[0].note if len({run.note for run in runs}) == 1 else ""),
        keys=[short(key, keys) for key in keys],
        measures=_measures(runs),
        members=members,
        groups=groups,
        several_seeds=seeds > 1,
        baselines=baselines,
        bars=cell_bars(groups, baselines, _measures(runs)),
        figures=overlaid_figures([(label_of[m.values], m.run.metrics()) for m in drawn], out / "figures"),
    )


def baseline_rows(groups: Sequence[Group], measures: Sequence[str]) -> dict[str, dict[str, Baseline]]:
    """Baselines that all groups share, by their name and then by measure."""
    rows: dict[str, dict[str, Baseline]] = {}
    for measure in measures:
        for one in shared_baselines(measure, [group.evaluation for group in groups]):
            rows.setdefault(one.name, {})[measure] = one
    return rows


def cell_bars(
    groups: Sequence[Group], baselines: Mapping[str, Mapping[str, Baseline]], measures: Sequence[str]
) -> dict[str, list[Bar | None]]:
    """For each measure a bar for each group and then for each row of baselines, all on one scale."""
    evaluations = [group.evaluation for group in groups]
    return {
        measure: column_bars(measure, evaluations, [row.get(measure) for row in baselines.values()])
        for measure in measures
    }


def group_over_seeds(runs: Sequence[RunReport], keys: Sequence[str]) -> list[Group]:
    """Groups runs by their values of ``keys``, in order of appearance.

    A group of one keeps the standard errors of its run; a larger one has the standard error of the mean over its runs
    (standard deviation with n − 1, by √n). A measure that some run of a group lacks is averaged over those that have
    it, and its ``n`` says how many they are.
    """
    grouped: dict[tuple[str, ...], list[RunReport]] = {}
    for run in runs:
        grouped.setdefault(_values(run, keys), []).append(run)
    labels = labels_of(list(grouped), keys)
    groups = []
    for values, members in grouped.items():
        evaluation = members[0].measures if len(members) == 1 else _over_runs(members)
        groups.append(Group(values, labels[values], tuple(run.seed for run in members), dict(evaluation)))
    return groups


def _over_runs(runs: Sequence[RunReport]) -> dict[str, Estimate]:
    means = {}
    for name in _measures(runs):
        estimates = [run.measures[name] for run in runs if name in run.measures]
        values = [estimate.value for estimate in estimates if math.isfinite(estimate.value)]
        mean = math.fsum(values) / len(values) if values else math.nan
        error = None
        if len(values) > 1:
            variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
            error = math.sqrt(variance / len(values))
        baselines = tuple(b for b in estimates[0].baselines if all(b in other.baselines for other in estimates))
        means[name] = replace(estimates[0], value=mean, standard_error=error, n=len(values), baselines=baselines)
    return means


def _measures(runs: Sequence[RunReport]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.measures))


def _values(run: RunReport, keys: Sequence[str]) -> tuple[str, ...]:
    return values_of(run.config, keys)


def _link(out: Path, run: RunReport) -> str:
    page = run.folder / PAGE
    return quote(Path(os.path.relpath(page, out)).as_posix()) if page.exists() else ""
