"""Figure 10 of MPO (arXiv 2412.04628): the mean spacing of adjacent rewards of k responses falls about as 1/k.

The mean of the k − 1 gaps between adjacent scores is their range over k − 1. For k independent scores its expectation
is the integral of 1 − F(x)^k − (1 − F(x))^k over x, over k − 1: exactly 1/(k + 1) for scores uniform in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from mpo.errors import DataError
from mpo.report import style
from mpo.report.markdown import table
from mpo.simulate.progress import Progress, quiet
from mpo.track.units import number

RESPONSES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
DRAWS = 20_000

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Row:
    """One distribution and k: mean spacing in the distribution's own unit, over ``draws`` sets, and its expectation.

    Attributes:
        local_slope: d log(expected spacing) / d log k from this k to twice as many; −1 is 1/k.
    """

    distribution: str
    k: int
    draws: int
    spacing: float
    standard_error: float
    expected: float
    local_slope: float


def simulate(
    seed: int = 0,
    ks: Sequence[int] = RESPONSES,
    draws: int = DRAWS,
    empirical: Mapping[str, Sequence[float]] | None = None,
    progress: Progress = quiet,
) -> list[Row]:
    """A row for each distribution of independent scores and k (at least 2): uniform, standard normal, those given.

    Args:
        empirical: finite scores by name, drawn from with replacement, all with the same probability.

    Raises:
        DataError: a distribution of scores that is empty or not finite.
    """
    named: dict[str, tuple[Draw, Callable[[int], float]]] = {
        "uniform 0..1": (lambda generator, shape: generator.random(shape), lambda k: 1 / (k + 1)),
        "normal, s.d. 1": (lambda generator, shape: generator.standard_normal(shape), _normal_spacing),
    }
    for name, scores in (empirical or {}).items():
        named[name] = _empirical(name, scores)
    rows: list[Row] = []
    for index, (name, (draw, expected)) in enumerate(named.items()):
        for k in ks:
            progress(len(rows), len(named) * len(ks))
            rows.append(_row(name, k, draws, draw, expected, [seed, index, k]))
    return rows


def _row(name: str, k: int, draws: int, draw: Draw, expected: Callable[[int], float], seed: list[int]) -> Row:
    score_NK = draw(np.random.default_rng(seed), (draws, k))
    spacing_N = (score_NK.max(1) - score_NK.min(1)) / (k - 1)
    error = float(spacing_N.std(ddof=1) / math.sqrt(draws))
    exact, doubled = expected(k), expected(2 * k)
    slope = math.log2(doubled / exact) if exact > 0 else math.nan
    return Row(name, k, draws, float(spacing_N.mean()), error, exact, slope)


def _normal_spacing(k: int) -> float:
    x = np.linspace(-10, 10, 4001)
    below = ndtr(x)
    return float((1 - below**k - (1 - below) ** k).sum() * (x[1] - x[0])) / (k - 1)


def _empirical(name: str, scores: Sequence[float]) -> tuple[Draw, Callable[[int], float]]:
    ordered = np.sort(np.asarray(scores, np.float64))
    if not ordered.size or not np.isfinite(ordered).all():
        raise DataError("the scores are not all finite numbers, or there are none", name, "leave those out")
    below = np.arange(1, ordered.size) / ordered.size  # the distribution function between two neighbours

    def expected(k: int) -> float:
        return float(((1 - below**k - (1 - below) ** k) * np.diff(ordered)).sum()) / (k - 1)

    return lambda generator, shape: ordered[generator.integers(ordered.size, size=shape)], expected


def of_sets(name: str, sets: Sequence[Sequence[float]], ks: Sequence[int] = RESPONSES) -> list[Row]:
    """Rows of scored response sets: the mean spacing of k of a set's responses, exact over all choices of k.

    Unlike scores pooled over prompts, these leave out how prompts differ. A row has as many ``draws`` as sets of k
    responses or more, its standard error is over these, and nothing is known of what to expect (NaN).

    Raises:
        DataError: a score that is not finite, or fewer than two sets that have as many responses as the smallest k.
    """
    ordered = [np.sort(np.asarray(scores, np.float64)) for scores in sets]
    if not all(np.isfinite(scores).all() for scores in ordered):
        raise DataError("not all scores are finite numbers", name, "leave those out")
    spacing_of = {
        k: [_chosen(scores, k) for scores in ordered if scores.size >= k] for k in {*ks, *(2 * k for k in ks)}
    }
    if len(spacing_of[min(ks)]) < 2:
        raise DataError(f"fewer than two sets have {min(ks)} responses or more", name, "give more sets")
    rows = []
    for k in ks:
        values, wider = np.asarray(spacing_of[k]), [_chosen(each, k) for each in ordered if each.size >= 2 * k]
        if values.size >= 2:
            mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(values.size))
            doubled = sum(spacing_of[2 * k]) / sum(wider) if sum(wider) > 0 else math.nan  # of the same sets
            slope = math.log2(doubled) if doubled > 0 else math.nan
            rows.append(Row(name, k, values.size, mean, error, math.nan, slope))
    return rows


def _chosen(ordered: np.ndarray, k: int) -> float:
    """Mean spacing of k of the sorted scores, over all choices."""
    largest = _share_largest(ordered.size, k)
    return float((ordered * (largest - largest[::-1])).sum()) / (k - 1)


@cache
def _share_largest(size: int, k: int) -> np.ndarray:
    """Of all choices of k of ``size`` scores, the share in which each rank (0 lowest) is the largest."""
    return np.asarray([math.comb(rank, k - 1) / math.comb(size, k) for rank in range(size)])


def findings(rows: Sequence[Row]) -> list[str]:
    """What the rows say, a sentence each."""
    lines = []
    for name in dict.fromkeys(row.distribution for row in rows):
        of_name = sorted((row for row in rows if row.distribution == name), key=lambda row: row.k)
        sloping = [row for row in of_name if math.isfinite(row.local_slope)]
        if sloping:
            first, last = sloping[0], sloping[-1]
            line = (
                f"{name}: local slope {first.local_slope:.2f} at k = {first.k}, {last.local_slope:.2f} at k = {last.k}"
            )
            lines.append(f"{line} (−1 is 1/k).")
        away = [abs(row.spacing - row.expected) / row.standard_error for row in of_name if row.standard_error]
        if away and all(math.isfinite(each) for each in away):
            lines.append(f"{name}: at most {max(away):.1f} standard errors from what is expected.")
    return [line.replace(" -", " −") for line in lines]


def markdown(rows: Sequence[Row]) -> str:
    """What was found and a table of all cells."""
    header = ["distribution", "k", "mean spacing", "expected", "k · spacing", "local slope"]
    cells = [
        [
            row.distribution,
            str(row.k),
            number(row.spacing, row.standard_error),
            number(row.expected),
            number(row.k * row.spacing, row.k * row.standard_error),
            number(round(row.local_slope, 3)).replace("-", "−"),
        ]
        for row in rows
    ]
    return "\n".join(f"- {line}" for line in findings(rows)) + f"\n\n{table(header, cells)}\n± is one standard error.\n"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Mean spacing against k with its expectation and a line of slope −1, as PNG."""
    ks = sorted({row.k for row in rows})
    with style.figure(path, width=7.4, height=4.2) as sheet:
        axes = sheet.subplots()
        for index, name in enumerate(dict.fromkeys(row.distribution for row in rows)):
            of_name = [row for row in rows if row.distribution == name]
            x, tint = [row.k for row in of_name], style.colour(index)
            values, errors = [row.spacing for row in of_name], [row.standard_error for row in of_name]
            axes.errorbar(x, values, errors, fmt="o", color=tint, markersize=4, label=name)
            axes.plot(x, [row.expected for row in of_name], color=tint, linewidth=1.2)
        axes.plot(ks, 1 / np.asarray(ks), "--", color="black", linewidth=1.2, label="1/k")
        axes.set(title="Mean spacing of adjacent rewards", xlabel="responses k", ylabel="spacing (unit of the reward)")
        style.log_axis(axes, "x", ks)
        style.log_axis(axes, "y")
        axes.legend(loc="lower left")
