"""Figures of an iterative run, round by round: each measure with its standard error, and where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mpo.evaluate.records import Estimate
from mpo.report.curves import Drawn
from mpo.report.records import RoundRow
from mpo.report.style import INSIDE, colour, figure, legend, placed_axes
from mpo.report.words import metric_name


def round_figures(estimates: Sequence[Estimate], folder: Path) -> list[Drawn]:
    """A figure for each metric that was measured in several rounds and is not the same in all of them, with a line a
    temperature; dotted is what it is compared with.

    Args:
        folder: where the PNG files go.
    """
    drawn: list[Drawn] = []
    for metric, judge in dict.fromkeys((one.metric, one.judge) for one in estimates if one.round is not None):
        lines: dict[float | None, list[Estimate]] = {}
        for one in estimates:
            if (one.metric, one.judge) == (metric, judge) and one.round is not None:
                lines.setdefault(one.temperature, []).append(one)
        if len({one.round for line in lines.values() for one in line}) < 2 or _constant(lines.values()):
            continue
        title = metric_name(metric)[:1].upper() + metric_name(metric)[1:] + " by round"
        path = folder / f"rounds_{len(drawn)}_{metric}.png"
        with figure(path, fitted=False) as sheet:
            axes = placed_axes(sheet, 0.84 if len(lines) > INSIDE else 0.97)
            for index, (temperature, line) in enumerate(lines.items()):
                line.sort(key=lambda one: one.round or 0)
                axes.errorbar(
                    [one.round or 0 for one in line],
                    [one.value for one in line],
                    yerr=[one.standard_error or 0.0 for one in line],
                    marker="o",
                    capsize=3,
                    color=colour(index),
                    label=None if temperature is None else f"T={temperature:g}",
                )
                for baseline in line[-1].baselines[:1]:
                    axes.axhline(baseline.value, color=colour(index), linewidth=0.9, linestyle=":")
            axes.set(title=title, xlabel="round", ylabel=line[-1].unit or metric_name(metric))
            axes.set_xticks(sorted({one.round or 0 for line in lines.values() for one in line}))
            legend(axes)
        compared = {line[-1].baselines[0].name for line in lines.values() if line[-1].baselines}
        dotted = f" Dotted: {', '.join(sorted(compared))}." if compared else ""
        drawn.append(Drawn(path, title, f"With standard errors over prompts.{dotted}"))
    return drawn


def time_figure(rows: Sequence[RoundRow], folder: Path) -> list[Drawn]:
    """One figure: seconds of each round, stacked by what they were spent on; none where there is one round."""
    if not rows:
        return []
    path = folder / "rounds_time.png"
    with figure(path, fitted=False) as sheet:
        axes = placed_axes(sheet, 0.80)
        below = [0.0] * len(rows)
        for index, kind in enumerate(dict.fromkeys(kind for row in rows for kind in row.seconds)):
            seconds = [row.seconds.get(kind, 0.0) for row in rows]
            axes.bar([row.round for row in rows], seconds, bottom=below, width=0.6, color=colour(index), label=kind)
            below = [sum(pair) for pair in zip(below, seconds, strict=True)]
        axes.set(title="Time by round", xlabel="round", ylabel="seconds when it was built")
        axes.set_xticks([row.round for row in rows])
        legend(axes)
    return [Drawn(path, "Time by round")]


def _constant(lines: Iterable[Sequence[Estimate]]) -> bool:
    return all(len({one.value for one in line}) == 1 for line in lines)
