"""One look for every figure: colours, type sizes, and how a figure becomes a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

# Okabe and Ito's palette, distinct to readers with any colour vision; black is left to text.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#B8A800")

_RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelcolor": "#333333",
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # else each drawing looks for what the title could cover, a tenth of a figure's time
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}

WIDTH_IN, HEIGHT_IN, DOTS_PER_INCH = 6.4, 3.6, 120

INSIDE = 3
"""Labels of a legend that fit inside the axes; a longer one stands beside them."""


@contextmanager
def figure(path: Path, width: float = WIDTH_IN, height: float = HEIGHT_IN, fitted: bool = True) -> Iterator[Figure]:
    """A styled figure (inches) that is written to ``path`` as PNG when the block ends. Needs no display.

    ``fitted`` margins follow the labels, which doubles the time of a figure; else the drawer places the axes.
    """
    with matplotlib.rc_context(_RC):
        drawn = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained" if fitted else None)
        yield drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(path, format="png", pil_kwargs={"compress_level": 1})


def placed_axes(sheet: Figure, right: float = 0.97, bottom: float = 0.15) -> Axes:
    """Axes with fixed margins in shares of the figure, their labels at its edges, for an unfitted figure."""
    left, top = 0.145, 0.90
    axes = sheet.add_axes((left, bottom, right - left, top - bottom))
    axes.yaxis.set_major_formatter(_tick)
    axes.yaxis.set_label_coords(0.03, (bottom + top) / 2, transform=sheet.transFigure)
    axes.xaxis.set_label_coords((left + right) / 2, bottom - 0.08, transform=sheet.transFigure)
    return axes


def log_axis(axes: Axes, which: Literal["x", "y"], at: Sequence[float] | None = None) -> None:
    """A logarithmic axis with plain numbers, for powers of ten are written as math; ticks only ``at``, where given."""
    axes.set(xscale="log") if which == "x" else axes.set(yscale="log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(_tick)
    axis.set_minor_formatter(NullFormatter())
    if at is not None:
        axis.set_ticks(list(at))
        axis.set_minor_locator(NullLocator())


def _tick(value: float, _: float) -> str:
    """A tick's whole number, for a power of ten that they share would stand where the title is."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def colour(index: int) -> str:
    """The ``index``-th categorical colour; they repeat after the eighth."""
    return COLOURS[index % len(COLOURS)]


def shade(index: int, count: int) -> Any:
    """A colour for the ``index``-th of ``count`` ordered things (ranks), dark for the first."""
    return matplotlib.colormaps["viridis"](0.88 * index / max(1, count - 1))


def legend(axes: Axes) -> None:
    """A legend where there is more than one labelled thing; beside the axes where it could cover the data."""
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > INSIDE:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.4)
    elif len(labels) > 1:
        axes.legend(loc="best")
