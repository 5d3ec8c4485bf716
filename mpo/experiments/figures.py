"""One picture a table or figure: every replication as a dot, means with standard errors, published numbers beside."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mpo.experiments.measured import Numbers
from mpo.experiments.spec import Axis, Column, Experiment
from mpo.experiments.statistics import summarise
from mpo.experiments.tables import PUBLISHED, blocks_of
from mpo.report.style import colour, figure, log_axis, shade

ROW_IN, PANEL_IN = 0.3, 2.9
APART = 0.18
"""Between the blocks' marks of a row, in rows."""
TITLE_POINTS = 10  # of panels that stand beside each other


def draw_rows(
    experiment: Experiment, column: Column, blocks: Sequence[str], numbers: Numbers,
    published: Mapping[str, Any] | None, path: Path,
) -> None:  # fmt: skip
    """Rows from top to bottom: measured, and the paper's first column for each of its blocks."""
    names = list(experiment.rows)
    joined = {b: r for b, r in blocks_of(published).items() if any(n in names for n in r)} if published else {}
    with figure(path, 4.2 + PANEL_IN * (len(blocks) - 1 + bool(joined)), 1.3 + ROW_IN * len(names)) as sheet:
        sheet.get_layout_engine().set(w_pad=0.12)  # type: ignore[union-attr, call-arg]  # room for half a tick's label
        panels = sheet.subplots(1, len(blocks) + bool(joined), sharey=True, squeeze=False)[0]
        for axes, block in zip(panels, blocks, strict=False):
            for index, name in enumerate(names):
                values = list(numbers.of((block, name, ""), column).values())
                if not values:
                    continue
                one = summarise(values)
                axes.plot(values, [index] * len(values), "o", color=colour(0), alpha=0.35, markersize=4, mew=0)
                error = 0.0 if math.isnan(one.error) else one.error
                axes.errorbar([one.mean], [index], xerr=[error], fmt="D", color=colour(0), markersize=5, capsize=3)
            axes.set(xlabel=f"{column.label}, measured" if block else column.label)
            axes.set_title(block or "measured", fontsize=TITLE_POINTS)
        if joined:
            axes = panels[-1]
            for number, (block, rows) in enumerate(joined.items()):
                beside = APART * (number - (len(joined) - 1) / 2)  # equal numbers would hide each other
                points = [(rows[name][0], index + beside) for index, name in enumerate(names) if name in rows]
                axes.plot(*zip(*points, strict=True), "s", color=colour(number + 1), markersize=5, label=block)
            assert published is not None
            label = PUBLISHED.get(published["columns"][0], published["columns"][0])
            axes.set(xlabel=label)
            axes.set_title("published", fontsize=TITLE_POINTS)
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        for axes in panels:
            axes.locator_params(axis="x", nbins=5)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)


def draw_lines(
    experiment: Experiment, column: Column, blocks: Sequence[str], axis: Axis, positions: Mapping[Any, float],
    numbers: Numbers, path: Path,
) -> None:  # fmt: skip
    """A line a row over the axis, means with standard errors, replications as dots.

    ``positions``: of a place (block, row, value) on the axis where that is measured too.
    """
    with figure(path, 6.4 + 3.4 * (len(blocks) - 1), 3.8) as sheet:
        panels = sheet.subplots(1, len(blocks), sharey=True, squeeze=False)[0]
        for axes, block in zip(panels, blocks, strict=True):
            for index, name in enumerate(experiment.rows):
                found = [(value, list(numbers.of((block, name, value), column).values())) for value in axis.values]
                found = [(value, values) for value, values in found if values]
                if not found:
                    continue
                at = [positions.get((block, name, value), _number(value)) for value, _ in found]
                of_all = [summarise(values) for _, values in found]
                errors = [0.0 if math.isnan(one.error) else one.error for one in of_all]
                means = [one.mean for one in of_all]
                style = {"color": colour(index), "marker": "D", "markersize": 5, "capsize": 3}
                axes.errorbar(at, means, yerr=errors, label=name, **style)
                for place, (_, values) in zip(at, found, strict=True):
                    axes.plot([place] * len(values), values, "o", color=colour(index), alpha=0.3, markersize=4, mew=0)
            label = "seconds of training" if axis.seconds else axis.label
            axes.set(xlabel=label, title=block or experiment.title)
            if axis.seconds:
                axes.set_xlim(left=0)
            elif axis.log:
                log_axis(axes, "x", [_number(value) for value in axis.values])
            else:
                axes.set_xticks([_number(value) for value in axis.values], axis.values)
        panels[0].set_ylabel(column.label)
        if len(experiment.rows) > 1:
            panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def draw_training(
    experiment: Experiment, metrics: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path
) -> None:
    """Metrics over optimizer steps: the mean of the replications, and all that lies between their extremes.

    ``metrics``: of each row, the records of each replication. Rows share a panel where each draws one metric alone;
    else each has a column of panels, a panel a pattern.
    """
    patterns = experiment.metrics
    if len(patterns) == 1 and "*" not in patterns[0]:
        with figure(path, 6.4, 3.6) as sheet:
            axes = sheet.subplots()
            for position, (name, runs) in enumerate(metrics.items()):
                if matching(runs, patterns[0]):
                    _curve(axes, runs, patterns[0], colour(position), name)
            axes.set(xlabel="optimizer step", ylabel=patterns[0], title=experiment.title)
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return
    with figure(path, 3.4 * len(metrics) + 2.0, 2.9 * len(patterns) + 0.5) as sheet:
        grid = sheet.subplots(len(patterns), len(metrics), sharex=True, sharey="row", squeeze=False)
        for row, pattern in enumerate(patterns):
            for axes, (name, runs) in zip(grid[row], metrics.items(), strict=True):
                found = matching(runs, pattern)
                for index, key in enumerate(found):
                    label = key.rpartition("/")[2].replace("_", " ")
                    _curve(axes, runs, key, shade(index, len(found)), label)
                if row == 0:
                    axes.set_title(name)
            grid[row][0].set_ylabel(pattern.partition("/")[0])
            if "*" in pattern and any(axes.lines for axes in grid[row]):
                full = max(grid[row], key=lambda axes: len(axes.lines))
                grid[row][-1].legend(*full.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1.0, 1.0))
        for axes in grid[-1]:
            axes.set_xlabel("optimizer step")


def draw_replications(
    experiment: Experiment, metrics: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path
) -> None:
    """Metrics over optimizer steps, a line a replication: a column a row of the experiment, a row a metric."""
    with figure(path, 3.6 * len(metrics) + 1.2, 2.4 * len(experiment.metrics) + 0.6) as sheet:
        grid = sheet.subplots(len(experiment.metrics), len(metrics), sharex=True, sharey="row", squeeze=False)
        for column, (name, runs) in enumerate(metrics.items()):
            for row, key in enumerate(experiment.metrics):
                for unit, records in enumerate(runs):
                    if not matching([records], key):
                        continue
                    _curve(grid[row][column], [records], key, colour(unit), f"replication {unit}")
                grid[row][0].set_ylabel(key.replace("_", " "))
            grid[0][column].set_title(name)
            grid[-1][column].set_xlabel("optimizer step")
        grid[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def matching(runs: Sequence[Sequence[Mapping[str, Any]]], pattern: str) -> list[str]:
    """The metrics of the pattern that every one of ``runs`` has recorded."""
    of_runs = [{key for record in records for key in record} for records in runs if records]
    keys = sorted(set.intersection(*of_runs) if of_runs else (), key=lambda key: (len(key), key))
    return [key for key in keys if fnmatch.fnmatchcase(key, pattern)]


def _curve(axes: Axes, runs: Sequence[Sequence[Mapping[str, Any]]], key: str, tint: Any, label: str) -> None:
    # A metric of evaluations is not there in every step.
    runs = [found for records in runs if (found := [record for record in records if key in record])]
    points = min(len(records) for records in runs)
    values = np.array([[_value(record[key]) for record in records[:points]] for records in runs])
    steps = np.array([float(record["step"]) for record in runs[0][:points]])
    width = max(1, points // 20)
    kernel = np.ones(width) / width
    smooth = np.apply_along_axis(lambda one: np.convolve(one, kernel, "valid"), 1, values)
    at = np.convolve(steps, kernel, "valid")
    axes.plot(at, smooth.mean(0), color=tint, label=label, linewidth=1.6)
    if len(runs) > 1:
        axes.fill_between(at, smooth.min(0), smooth.max(0), color=tint, alpha=0.15, linewidth=0)


def _value(value: Any) -> float:
    return math.nan if value is None else float(value)
