"""Histograms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mpo.evaluate.records import Distribution
from mpo.report.curves import Drawn
from mpo.report.style import colour, figure, placed_axes
from mpo.track.units import number


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
    with figure(path, fitted=False) as sheet:
        axes = placed_axes(sheet, bottom=0.17 + 0.06 * len(series))
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
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=1)
    return Drawn(path, distribution.name[:1].upper() + distribution.name[1:])


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name
