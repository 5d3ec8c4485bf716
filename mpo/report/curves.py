"""Training curves: which metrics share a figure, and how noisy lines are drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mpo.report.style import INSIDE, colour, figure, legend, placed_axes, shade

Floats = NDArray[np.float64]
Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: the metrics whose key matches ``pattern`` (in full), on an axis called ``y_label``.

    ``ordered``: the keys are ranks, drawn dark (best) to light. ``compared``: drawn for several runs together.
    """

    name: str
    title: str
    y_label: str
    pattern: str
    caption: str = ""
    ordered: bool = False
    smooth: bool = True
    compared: bool = True


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure's file with the words that go with it."""

    path: Path
    title: str
    caption: str = ""


HELDOUT = "heldout/"
"""Of metrics of held-out sets, which are drawn beside the training's."""
PANELS = (
    Panel("loss", "Loss", "loss, mean over response sets", r"(heldout/)?loss"),
    Panel(
        "margin",
        "Margin",
        "implicit reward, accepted − rejected",
        r"(heldout/)?margin",
        "Held-out sets: the best response's implicit reward minus the mean of all others'.",
    ),
    Panel(
        "accuracy",
        "Ranking accuracy",
        "share of pairs in the order of their scores",
        r"(heldout/)?accuracy",
        "Pairs whose implicit rewards stand in the order of their scores; 0.5 is chance. Held-out sets: over all "
        "responses, also those that the partition drops.",
    ),
    Panel(
        "reward_sides",
        "Implicit reward, accepted and rejected",
        "implicit reward",
        r"reward_(accepted|rejected)",
        compared=False,
    ),
    Panel(
        "reward_ranks",
        "Implicit reward by rank",
        "implicit reward",
        r"reward/rank_\d+",
        "Rank 0 is the response with the best score.",
        ordered=True,
    ),
    Panel(
        "likelihood_ranks",
        "Likelihood by rank",
        "average token likelihood",
        r"likelihood/rank_\d+",
        "Geometric mean over a response's tokens (MPPO, figures 3 and 4); rank 0 is the response with the best score.",
        ordered=True,
    ),
    Panel(
        "heldout_reward",
        "Score of held-out responses",
        "mean score",
        r"heldout/reward",
        "One response, drawn at temperature 1, to each of the first held-out prompts.",
        smooth=False,
    ),
    Panel("kl", "Distance from the reference", "KL estimate (k3), nats per token", r"(heldout/)?kl"),
    Panel("weights", "W-MPO weights", "weight e^(α·deviation)", r"weight_\w+", compared=False),
    Panel("lr", "Learning rate", "learning rate", r"lr", smooth=False, compared=False),
    Panel("grad_norm", "Gradient norm", "norm before clipping", r"grad_norm"),
    Panel("tokens_per_second", "Speed", "tokens per second", r"tokens_per_second"),
)


def training_figures(metrics: Sequence[Records], folder: Path) -> list[Drawn]:
    """Draws every panel that the metrics have values for, a dotted line where a later round begins.

    Args:
        metrics: the records of each round in order; each record is a dict with ``step`` and numbers.
        folder: where the PNG files go.
    """
    drawn = []
    rounds = _one_axis(metrics)
    for panel in PANELS:
        keys = _keys([record for records in rounds for record in records], panel.pattern)
        if not keys:
            continue
        path = folder / f"{panel.name}.png"
        with figure(path, fitted=False) as sheet:
            right = 0.86 if len(keys) > INSIDE else 0.97  # room for the legend, whose labels are short here
            axes = placed_axes(sheet, right)
            for index, key in enumerate(keys):
                tint = shade(index, len(keys)) if panel.ordered else colour(index)
                draw_rounds(axes, rounds, key, _label(key), tint, panel.smooth)
            for records in rounds[1:]:
                if records:
                    axes.axvline(records[0]["step"], color="#888888", linewidth=0.8, linestyle=":")
            axes.set(title=panel.title, xlabel="optimizer step", ylabel=panel.y_label)
            legend(axes)
        drawn.append(Drawn(path, panel.title, panel.caption))
    return drawn


def overlaid_figures(members: Sequence[tuple[str, Sequence[Records]]], folder: Path) -> list[Drawn]:
    """Draws the single-valued panels with one line a run; runs with the same label share a colour.

    Args:
        members: (label, records of each round) of each run.
        folder: where the PNG files go.
    """
    labels = list(dict.fromkeys(label for label, _ in members))
    runs = [(label, _one_axis(metrics)) for label, metrics in members]
    drawn = []
    for panel in PANELS:
        if panel.ordered or not panel.compared:
            continue
        lines = [(label, rounds) for label, rounds in runs if any(series(r, panel.name)[0].size for r in rounds)]
        if not lines:
            continue
        path = folder / f"compare_{panel.name}.png"
        with figure(path, width=8.4) as sheet:
            axes = sheet.subplots()
            named: set[str] = set()
            for label, rounds in lines:
                shown = "" if label in named else label
                draw_rounds(axes, rounds, panel.name, shown, colour(labels.index(label)), panel.smooth, raw=False)
                named.add(label)
            axes.set(title=panel.title, xlabel="optimizer step", ylabel=panel.y_label)
            legend(axes)
        drawn.append(Drawn(path, panel.title, panel.caption))
    return drawn


def series(records: Records, key: str) -> tuple[Floats, Floats]:
    """Steps and values of one metric where it is there and finite."""
    pairs = [(record["step"], record[key]) for record in records if isinstance(record.get(key), int | float)]
    points = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points[:, 1])]
    return points[:, 0], points[:, 1]


def smoothed(values: Floats) -> Floats:
    """A centred mean over about a 25th of the points, fewer at the ends; short series come back unchanged."""
    half = values.size // 50
    if half == 0:
        return values
    sums = np.concatenate(([0.0], np.cumsum(values)))
    index = np.arange(values.size)
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, values.size)
    return np.asarray((sums[last] - sums[first]) / (last - first))


def draw_rounds(
    axes: Axes, rounds: Sequence[Records], key: str, label: str, tint: Any, smooth: bool = True, raw: bool = True
) -> None:
    """Draws one metric: a smoothed line for each round, with the raw values faint behind it where they differ."""
    for records in rounds:
        steps, values = series(records, key)
        line = smoothed(values) if smooth else values
        if raw and line is not values:
            axes.plot(steps, values, color=tint, alpha=0.22, linewidth=0.8)
        marker = "o" if values.size == 1 else None
        axes.plot(steps, line, color=tint, linewidth=1.7, label=label or None, marker=marker)
        label = ""


def _one_axis(metrics: Sequence[Records]) -> list[list[dict[str, Any]]]:
    """The rounds with their steps counted on from one round to the next."""
    rounds: list[list[dict[str, Any]]] = []
    offset = 0
    for records in metrics:
        rounds.append([{**record, "step": record["step"] + offset} for record in records])
        offset = rounds[-1][-1]["step"] if records else offset
    return rounds


def _keys(records: Records, pattern: str) -> list[str]:
    found = {key for record in records for key in record if re.fullmatch(pattern, key)}
    keys = [key for key in found if series(records, key)[0].size]

    def place(key: str) -> tuple[bool, list[int | str]]:  # numbers by value, and training before held-out sets
        parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]
        return key.startswith(HELDOUT), parts

    return sorted(keys, key=place)


def _label(key: str) -> str:
    if key.startswith(HELDOUT):
        return "held out"
    return re.sub(r"^(reward|weight)_|.*/", "", key).replace("_", " ")
