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
from mpo.report.style import colour, figure, shade

ROW_IN = 0.3


def draw_rows(
    experiment: Experiment, column: Column, blocks: Sequence[str], numbers: Numbers,
    published: Mapping[str, Any] | None, path: Path,
) -> None:  # fmt: skip
    """Rows from top to bottom: measured, and the paper's first column for each of its blocks."""
    names = list(experiment.rows)
    joined = {b: r for b, r in blocks_of(published).items() if any(str(n) in names for n in r)} if published else {}
    with figure(path, 4.2 + 2.6 * (len(blocks) - 1 + bool(joined)), 1.3 + ROW_IN * len(names)) as sheet:
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
            axes.set(xlabel=column.label, title=f"measured{f', {block}' if block else ''}")
        if joined:
            axes = panels[-1]
            for number, (block, rows) in enumerate(joined.items()):
                points = [(rows[name][0], index) for index, name in enumerate(names) if name in rows]
                axes.plot(*zip(*points, strict=True), "s", color=colour(number + 1), markersize=5, label=block)
            assert published is not None
            label = PUBLISHED.get(published["columns"][0], published["columns"][0])
            axes.set(xlabel=label, title="published")
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()


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
            axes.set(xlabel=label, title=block or f"{column.label} by {label}")
            if axis.log or axis.seconds:
                axes.set_xscale("log")
            if not axis.seconds:
                axes.set_xticks([_number(value) for value in axis.values], axis.values)
                axes.minorticks_off()
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

    ``metrics``: of each row, the records of each replication. Rows share a panel where one metric is drawn.
    """
    several = any("*" in pattern for pattern in experiment.metrics) or len(experiment.metrics) > 1
    panels = list(metrics) if several else ["\N{MIDDLE DOT}"]
    with figure(path, 3.4 * len(panels) + 2.0 if several else 6.4, 3.6) as sheet:
        grid = sheet.subplots(1, len(panels), sharey=several, squeeze=False)[0]
        for position, (name, runs) in enumerate(metrics.items()):
            axes = grid[position if several else 0]
            if not runs:
                continue
            found = [key for pattern in experiment.metrics for key in _matching(runs[0], pattern)]
            for index, key in enumerate(found):
                label = key.rpartition("/")[2].replace("_", " ") if several else name
                _curve(axes, runs, key, shade(index, len(found)) if several else colour(position), label)
            axes.set(xlabel="optimizer step", title=name if several else experiment.title)
        grid[0].set_ylabel("likelihood" if several else experiment.metrics[0])
        grid[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def draw_replications(
    experiment: Experiment, metrics: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path
) -> None:
    """Metrics over optimizer steps, a line a replication: a column a row of the experiment, a row a metric."""
    with figure(path, 3.6 * len(metrics) + 1.2, 2.4 * len(experiment.metrics) + 0.6) as sheet:
        grid = sheet.subplots(len(experiment.metrics), len(metrics), sharex=True, sharey="row", squeeze=False)
        for column, (name, runs) in enumerate(metrics.items()):
            for row, key in enumerate(experiment.metrics):
                for unit, records in enumerate(runs):
                    _curve(grid[row][column], [records], key, colour(unit), f"replication {unit}")
                grid[row][0].set_ylabel(key.replace("_", " "))
            grid[0][column].set_title(name)
            grid[-1][column].set_xlabel("optimizer step")
        grid[0][-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _matching(records: Sequence[Mapping[str, Any]], pattern: str) -> list[str]:
    keys = sorted({key for record in records[:3] for key in record}, key=lambda key: (len(key), key))
    return [key for key in keys if fnmatch.fnmatchcase(key, pattern)]


def _curve(axes: Axes, runs: Sequence[Sequence[Mapping[str, Any]]], key: str, tint: Any, label: str) -> None:
    steps = min(len(records) for records in runs)
    values = np.array([[_value(record.get(key)) for record in records[:steps]] for records in runs])
    width = max(1, steps // 20)
    smooth = np.apply_along_axis(lambda one: np.convolve(one, np.ones(width) / width, "valid"), 1, values)
    at = np.arange(smooth.shape[1]) + width / 2 + 0.5
    axes.plot(at, smooth.mean(0), color=tint, label=label, linewidth=1.6)
    if len(runs) > 1:
        axes.fill_between(at, smooth.min(0), smooth.max(0), color=tint, alpha=0.15, linewidth=0)


def _value(value: Any) -> float:
    return math.nan if value is None else float(value)
