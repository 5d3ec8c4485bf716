"""The metric of a sweep over what varies: a curve for one key, a map for two, a panel for each of more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mpo.report.best import Best
from mpo.report.curves import Drawn
from mpo.report.style import colour, figure, log_axis
from mpo.report.sweep_record import Outcome, SweepRecord
from mpo.track.units import number

FACTOR_OF_LOG = 15
"""Values that span more than this factor stand on a logarithmic scale."""
MOST_CELLS = 12
"""Rows or columns of a map whose cells hold numbers that can be read."""
FAILED = "no value"


@dataclass(frozen=True)
class Scale:
    """Where the values of one key stand: numbers at themselves, words in their order."""

    key: str
    values: tuple[str, ...]
    numbers: tuple[float, ...] | None
    log: bool

    def place(self, value: str) -> float:
        """Position of a value on the axis."""
        return float(value) if self.numbers is not None else self.values.index(value)

    def apply(self, axes: Axes, which: Literal["x", "y"]) -> None:
        """Scale, ticks and label of an axis."""
        axis = axes.xaxis if which == "x" else axes.yaxis
        few = self.numbers is None or len(self.values) <= MOST_CELLS
        places = [self.place(value) for value in self.values] if few else None
        if self.log:
            log_axis(axes, which, places)
        elif places is not None:
            axis.set_ticks(places, labels=[_shown(value) for value in self.values])
        axis.set_label_text(self.key)


def surface_figures(
    record: SweepRecord, found: Sequence[Outcome], best: Best | None, title: str, start: float | None, folder: Path
) -> list[Drawn]:
    """Draws what the sweep has found.

    Args:
        title: what people call the metric.
        start: its value before training, drawn as a line; None where it is not known.
        folder: where the PNG files go.
    """
    scales = [_scale(record, place) for place in range(len(record.axes))]
    if not any(each.values for each in found):
        return []
    if len(scales) == 2 and all(len(scale.values) <= MOST_CELLS for scale in scales):
        return [_map(scales, found, best, title, folder / "sweep_map.png")]
    joined = len(scales) == 1 and scales[0].numbers is not None
    drawn = []
    for place, scale in enumerate(scales):
        path = folder / f"sweep_{place}.png"
        with figure(path) as sheet:
            axes = sheet.subplots()
            _curve(axes, scale, place, found, best, joined)
            if start is not None and math.isfinite(start):
                axes.axhline(start, color="#555555", linestyle="--", linewidth=1.0, label="starting policy")
            axes.set(title=f"{title} over {scale.key}", ylabel=title)
            axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.17), ncols=4)
        drawn.append(Drawn(path, f"{title} over {scale.key}", _caption(record, len(scales))))
    if len(scales) == 2:
        drawn.append(_plane(scales, found, best, title, folder / "sweep_plane.png"))
    return drawn


def _caption(record: SweepRecord, keys: int) -> str:
    errors = "standard errors of the mean over seeds" if len(record.seeds) > 1 else "standard errors of its evaluation"
    others = " The other keys vary beside it." if keys > 1 else ""
    return f"A point a setting; bars are {errors}.{others}"


def _curve(axes: Axes, scale: Scale, place: int, found: Sequence[Outcome], best: Best | None, joined: bool) -> None:
    known = sorted((o for o in found if o.values), key=lambda o: scale.place(o.setting[place]))
    x = [scale.place(each.setting[place]) for each in known]
    y = [each.mean for each in known]
    bars = [each.error if each.error is not None and math.isfinite(each.error) else 0.0 for each in known]
    if any(len(each.values) > 1 for each in known):
        dots = [(at, value) for at, each in zip(x, known, strict=True) for value in each.values]
        axes.plot(*zip(*dots, strict=True), ".", color=colour(0), alpha=0.35, markersize=6, label="a run")
    line = "o-" if joined else "o"
    axes.errorbar(x, y, bars, fmt=line, color=colour(0), capsize=3, linewidth=1.5, markersize=5, label="a setting")
    if best is not None:
        at = scale.place(best.outcome.setting[place])
        axes.plot(at, best.outcome.mean, "o", color=colour(1), markersize=11, fillstyle="none", mew=2, label="the best")
    if lost := [scale.place(each.setting[place]) for each in found if each.failed]:
        low = axes.get_ylim()[0]
        axes.plot(lost, [low] * len(lost), "x", color="#333333", clip_on=False, label="a run without a value")
        axes.set_ylim(bottom=low)
    scale.apply(axes, "x")


def _map(scales: Sequence[Scale], found: Sequence[Outcome], best: Best | None, title: str, path: Path) -> Drawn:
    """Cells of equal size, the mean and its error written into each; a setting that was tried twice is averaged."""
    across, up = sorted(scales, key=lambda scale: -len(scale.values))
    order = [scales.index(across), scales.index(up)]
    cells: dict[tuple[int, int], list[Outcome]] = {}
    for each in found:
        column, row = (scales[place].values.index(each.setting[place]) for place in order)
        cells.setdefault((column, row), []).append(each)
    means = np.full((len(up.values), len(across.values)), np.nan)
    for (column, row), several in cells.items():
        if all(each.complete for each in several):
            means[row, column] = float(np.mean([each.mean for each in several]))
    with figure(path, width=max(6.4, 1.6 + 0.85 * len(across.values)), height=1.5 + 0.62 * len(up.values)) as sheet:
        axes = sheet.subplots()
        image = axes.imshow(means, origin="lower", aspect="auto", cmap="viridis")
        axes.grid(False)
        axes.set_facecolor("#EFEFEF")
        for (column, row), several in cells.items():
            axes.text(column, row, _cell(several), ha="center", va="center", fontsize=9,
                      color=_ink(image, means[row, column]))  # fmt: skip
        if best is not None:
            column, row = (scales[place].values.index(best.outcome.setting[place]) for place in order)
            axes.add_patch(Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, fill=False, color=colour(1), linewidth=3))
        axes.set_xticks(range(len(across.values)), [_shown(value) for value in across.values])
        axes.set_yticks(range(len(up.values)), [_shown(value) for value in up.values])
        axes.set(title=title, xlabel=across.key, ylabel=up.key)
        sheet.colorbar(image, ax=axes, pad=0.02)
    return Drawn(path, title, "Mean ± standard error of each setting; the best has a frame.")


def _cell(several: Sequence[Outcome]) -> str:
    if len(several) == 1 and several[0].complete:
        return number(several[0].mean, several[0].error).replace(" ± ", "\n± ")
    if all(each.complete for each in several):
        return number(float(np.mean([each.mean for each in several])))
    return FAILED


def _ink(image: Any, value: float) -> str:
    """Black or white, whichever can be read on the cell's colour."""
    if not math.isfinite(value):
        return "#333333"
    red, green, blue = image.cmap(image.norm(value))[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _plane(scales: Sequence[Scale], found: Sequence[Outcome], best: Best | None, title: str, path: Path) -> Drawn:
    """Two keys of which at least one takes many values: a point a setting, its colour the metric."""
    across, up = scales
    known = [each for each in found if each.values]
    with figure(path) as sheet:
        axes = sheet.subplots()
        x, y = ([scale.place(o.setting[place]) for o in known] for place, scale in enumerate(scales))
        points = axes.scatter(x, y, c=[each.mean for each in known], cmap=matplotlib.colormaps["viridis"], s=60)
        if best is not None:
            at = [scale.place(best.outcome.setting[place]) for place, scale in enumerate(scales)]
            axes.plot(*at, "o", color=colour(1), markersize=13, fillstyle="none", mew=2)
        across.apply(axes, "x")
        up.apply(axes, "y")
        axes.set(title=title)
        sheet.colorbar(points, ax=axes, pad=0.02)
    return Drawn(path, title, "A point a setting; the best has a ring.")


def _scale(record: SweepRecord, place: int) -> Scale:
    values = list(dict.fromkeys(setting[place] for setting in record.settings))
    try:
        numbers = sorted(float(value) for value in values)
        values.sort(key=float)
    except ValueError:
        return Scale(record.axes[place], tuple(values), None, False)
    wide = numbers[0] > 0 and numbers[-1] > FACTOR_OF_LOG * numbers[0]
    return Scale(record.axes[place], tuple(values), tuple(numbers), record.axes[place] in record.log or wide)


def _shown(value: str) -> str:
    try:
        return f"{float(value):g}"
    except ValueError:
        return value
