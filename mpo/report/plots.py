"""Evaluation bars and histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpo.report.curves import Drawn
from mpo.report.records import Baseline, Distribution, Estimate
from mpo.report.style import BASELINE, colour, figure
from mpo.track.units import number

_PANEL_WIDTH_IN = 3.2
_ROW_IN = 0.34
_LONG_TITLE = 36  # characters that fit a panel at full size


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a panel; ``standard_error`` is drawn as its whisker."""

    label: str
    value: float
    standard_error: float | None
    tint: str


def evaluation_bars(evaluation: Mapping[str, Estimate], path: Path) -> Drawn | None:
    """Every measure that has a baseline beside it, a panel each; None where there is none. The rest is in the table.

    Whiskers are standard errors.
    """
    panels = {}
    for name, estimate in evaluation.items():
        if not estimate.baselines:
            continue
        bars = [Bar("trained policy", estimate.value, estimate.standard_error, colour(0))]
        bars += [Bar(b.name, b.value, b.standard_error, BASELINE) for b in estimate.baselines]
        panels[_with_unit(name, estimate.unit)] = bars
    return _bar_panels(panels, path, "Evaluation", "Whiskers are standard errors.")


def comparison_bars(evaluations: Mapping[str, Mapping[str, Estimate]], path: Path, caption: str) -> Drawn | None:
    """Every measure, a panel each, with a bar for each entry of ``evaluations`` (label → measures).

    Baselines that all entries share have bars of their own.
    """
    panels: dict[str, list[Bar]] = {}
    shared: dict[str, list[Baseline]] = {}
    for index, (label, evaluation) in enumerate(evaluations.items()):
        for name, estimate in evaluation.items():
            panel = _with_unit(name, estimate.unit)
            panels.setdefault(panel, []).append(Bar(label, estimate.value, estimate.standard_error, colour(index)))
            shared[panel] = [b for b in estimate.baselines if b in shared.get(panel, estimate.baselines)]
    for panel, baselines in shared.items():
        panels[panel] += [Bar(b.name, b.value, b.standard_error, BASELINE) for b in baselines]
    return _bar_panels(panels, path, "Evaluation", caption)


def histogram(distribution: Distribution, path: Path) -> Drawn | None:
    """The share of values in common bins, one outline a series; None without a finite value."""
    series = {
        name: np.asarray([value for value in values if math.isfinite(value)], dtype=np.float64)
        for name, values in distribution.series.items()
    }
    series = {name: values for name, values in series.items() if values.size}
    if not series:
        return None
    edges = np.histogram_bin_edges(np.concatenate(list(series.values())), bins=30)
    with figure(path) as sheet:
        axes = sheet.subplots()
        for index, (name, values) in enumerate(series.items()):
            shares = np.histogram(values, bins=edges)[0] / values.size
            label = f"{name} (mean {number(float(values.mean()))}, n = {values.size:,})"
            axes.stairs(shares, edges, fill=True, color=colour(index), alpha=0.18)
            axes.stairs(shares, edges, color=colour(index), linewidth=1.6, label=label)
        axes.set(
            title=distribution.name[:1].upper() + distribution.name[1:],
            xlabel=_with_unit(distribution.name, distribution.unit),
            ylabel="share of values",
        )
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.18), ncols=1)
    return Drawn(path, distribution.name[:1].upper() + distribution.name[1:])


def _bar_panels(panels: Mapping[str, Sequence[Bar]], path: Path, title: str, caption: str) -> Drawn | None:
    shown = {name: [bar for bar in bars if math.isfinite(bar.value)] for name, bars in panels.items()}
    shown = {name: bars for name, bars in shown.items() if bars}
    if not shown:
        return None
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    most = max(len(bars) for bars in shown.values())
    with figure(path, width=0.6 + columns * (_PANEL_WIDTH_IN + 1.2), height=rows * (0.8 + _ROW_IN * most)) as sheet:
        grid = sheet.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        for axes, (name, bars) in zip(grid, shown.items(), strict=False):
            places = np.arange(len(bars))
            errors = [_whisker(bar.standard_error) for bar in bars]
            axes.barh(places, [bar.value for bar in bars], color=[bar.tint for bar in bars], height=0.68)
            ends = []
            for place, bar, error in zip(places, bars, errors, strict=True):
                if error:
                    axes.errorbar(bar.value, place, xerr=error, color="#222222", capsize=2.5, linewidth=1)
                outward = bar.value + math.copysign(error, bar.value)
                ends.append(outward)
                axes.annotate(
                    number(bar.value, bar.standard_error),
                    (outward, place),
                    xytext=(4 if bar.value >= 0 else -4, 0),
                    textcoords="offset points",
                    va="center",
                    ha="left" if bar.value >= 0 else "right",
                    fontsize=8.5,
                )
            # Room for the numbers beyond the bars.
            low, high = min(0.0, *ends), max(0.0, *ends)
            span = (high - low) or 1.0
            axes.set_xlim(low - (0.5 * span if low < 0 else 0), high + (0.5 * span if high > 0 or low == 0 else 0))
            axes.set_yticks(places, [bar.label for bar in bars])
            axes.set_ylim(len(bars) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            axes.set_title(name, fontsize=10.5 if len(name) <= _LONG_TITLE else 8.5)
    return Drawn(path, title, caption)


def _whisker(standard_error: float | None) -> float:
    return standard_error if standard_error is not None and math.isfinite(standard_error) else 0.0


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name
