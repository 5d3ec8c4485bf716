"""Theorem 1 of MPO (arXiv 2412.04628): with n responses, the distance to the true distribution falls as n^(−1/2).

The simplest setting in which the statement can be tested: the acceptable responses to a prompt fall into m kinds with
probabilities p; n are drawn independently; the policy is the one that fits them best, their empirical distribution.
Distance is total variation, ½ Σ abs(p̂ − p): the largest bias that any attribute with values in 0..1 can have. So this
shows the error of sampling alone, not how near training comes to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from mpo.report import style
from mpo.report.markdown import table
from mpo.simulate.progress import Progress, quiet
from mpo.track.units import number

RESPONSES = tuple(2**power for power in range(1, 19))
DRAWS = 1_000
ENOUGH = 64
"""Responses that the rarest kind is expected to have in the smallest n of a fit: below, the rate is not reached."""


@dataclass(frozen=True, slots=True)
class Row:
    """One distribution and n: means over ``draws`` sets of n responses, with standard errors.

    Attributes:
        kinds: how many kinds of responses there are.
        rarest: probability of the rarest kind.
        distance, distance_error: total variation between drawn and true distribution, 0..1.
        exact: its expectation.
        bound: ½ Σ √(p(1 − p)/n), which the expectation cannot pass.
        bias, bias_error: absolute error of an attribute's mean, the attribute evenly spaced in 0..1 over the kinds.
    """

    distribution: str
    kinds: int
    rarest: float
    n: int
    draws: int
    distance: float
    distance_error: float
    exact: float
    bound: float
    bias: float
    bias_error: float


@dataclass(frozen=True, slots=True)
class Slope:
    """Slope of log distance over log n where n · rarest ≥ :data:`ENOUGH`; ``exact`` is that of the expectation."""

    distribution: str
    smallest_n: int
    largest_n: int
    value: float
    standard_error: float
    exact: float


def distributions() -> dict[str, np.ndarray]:
    """Few even kinds, many uneven ones, and more kinds than most n."""
    zipf = 1 / np.arange(1, 33)
    return {
        "16 even kinds": np.full(16, 1 / 16),
        "32 kinds, p ~ 1/rank": zipf / zipf.sum(),
        "1,024 even kinds": np.full(1024, 1 / 1024),
    }


def simulate(
    seed: int = 0,
    ns: Sequence[int] = RESPONSES,
    draws: int = DRAWS,
    targets: Mapping[str, np.ndarray] | None = None,
    progress: Progress = quiet,
) -> list[Row]:
    """A row for each distribution (default :func:`distributions`) and n; all rows are drawn independently."""
    named = targets or distributions()
    rows: list[Row] = []
    for index, (name, p_M) in enumerate(named.items()):
        for n in ns:
            progress(len(rows), len(named) * len(ns))
            counts_NM = np.random.default_rng([seed, index, n]).multinomial(n, p_M, size=draws)
            error_NM = counts_NM / n - p_M
            distance_N = np.abs(error_NM).sum(1) / 2
            bias_N = np.abs(error_NM @ np.linspace(0, 1, len(p_M)))
            rows.append(
                Row(
                    distribution=name,
                    kinds=len(p_M),
                    rarest=float(p_M.min()),
                    n=n,
                    draws=draws,
                    distance=float(distance_N.mean()),
                    distance_error=float(distance_N.std(ddof=1) / math.sqrt(draws)),
                    exact=expected_distance(n, p_M),
                    bound=float(np.sqrt(p_M * (1 - p_M) / n).sum() / 2),
                    bias=float(bias_N.mean()),
                    bias_error=float(bias_N.std(ddof=1) / math.sqrt(draws)),
                )
            )
    return rows


def expected_distance(n: int, p_M: np.ndarray) -> float:
    """E ½ Σ abs(p̂ − p) exactly, from De Moivre's mean absolute deviation of a binomial.

    E abs(N − np) = 2 ν C(n, ν) p^ν (1 − p)^(n−ν+1) with ν = ⌊np⌋ + 1.
    """
    nu_M = np.minimum(np.floor(n * p_M) + 1, n)
    log_choose_M = gammaln(n + 1) - gammaln(nu_M + 1) - gammaln(n - nu_M + 1)
    deviation_M = 2 * nu_M * np.exp(log_choose_M + xlogy(nu_M, p_M) + xlog1py(n - nu_M + 1, -p_M))
    return float(deviation_M.sum() / (2 * n))


def slopes(rows: Sequence[Row]) -> list[Slope]:
    """The rate of each distribution that has two n or more in the range of the fit."""
    found = []
    for name in dict.fromkeys(row.distribution for row in rows):
        fitted = [row for row in rows if row.distribution == name and row.n * row.rarest >= ENOUGH]
        if len(fitted) >= 2:
            log_n = np.log([row.n for row in fitted])
            errors = np.asarray([row.distance_error / row.distance for row in fitted])
            value, error = _line(log_n, np.log([row.distance for row in fitted]), errors)
            exact, _ = _line(log_n, np.log([row.exact for row in fitted]), errors)
            found.append(Slope(name, fitted[0].n, fitted[-1].n, value, error, exact))
    return found


def _line(x: np.ndarray, y: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Slope of a line by least squares weighted with known standard errors, and its standard error."""
    weights = 1 / errors**2
    centred = x - np.average(x, weights=weights)
    spread = float((weights * centred**2).sum())
    return float((weights * centred * y).sum()) / spread, 1 / math.sqrt(spread)


def findings(rows: Sequence[Row]) -> list[str]:
    """What the rows say, a sentence each."""
    lines = []
    for slope in slopes(rows):
        away = abs(slope.value + 0.5) / slope.standard_error
        value = number(slope.value, slope.standard_error).replace("-", "−")
        lines.append(
            f"{slope.distribution}: slope {value} over n = {slope.smallest_n:,} to {slope.largest_n:,}, {away:.1f} "
            f"standard errors from −0.5 (slope of the exact expectation −{-slope.exact:.4f})."
        )
    inside = sum(row.distance + 3 * row.distance_error <= row.bound for row in rows)
    lines.append(f"The distance is below ½ Σ √(p(1 − p)/n) by three standard errors in {inside} of {len(rows)} cells.")
    lines.extend(_too_few(rows))
    return lines


def _too_few(rows: Sequence[Row]) -> list[str]:
    """What n far below the number of kinds gives."""
    most = max(row.kinds for row in rows)
    few = [row for row in rows if row.kinds == most and row.n * 16 <= most]
    if not few:
        return []
    first, last = few[0], few[-1]
    return [
        f"The rate needs n above the number of kinds: with {first.distribution} the distance is {first.distance:.3f} "
        f"at n = {first.n} and {last.distance:.3f} at n = {last.n}. Whole texts are hardly ever drawn twice: the "
        "rate is one of kinds or attributes."
    ]


def markdown(rows: Sequence[Row]) -> str:
    """What was found and a table of all cells."""
    header = ["distribution", "n", "total variation", "exact", "upper bound", "bias of one attribute"]
    cells = [
        [
            row.distribution,
            f"{row.n:,}",
            number(row.distance, row.distance_error),
            f"{row.exact:.5f}",
            f"{row.bound:.5f}",
            number(row.bias, row.bias_error),
        ]
        for row in rows
    ]
    return "\n".join(f"- {line}" for line in findings(rows)) + f"\n\n{table(header, cells)}\n± is one standard error.\n"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Total variation against n with its exact expectation and a line of slope −1/2, as PNG."""
    with style.figure(path, width=7.4, height=4.2) as sheet:
        axes = sheet.subplots()
        for index, name in enumerate(dict.fromkeys(row.distribution for row in rows)):
            of_name = [row for row in rows if row.distribution == name]
            x, tint = [row.n for row in of_name], style.colour(index)
            values, errors = [row.distance for row in of_name], [row.distance_error for row in of_name]
            axes.errorbar(x, values, errors, fmt="o", color=tint, markersize=4, label=name)
            axes.plot(x, [row.exact for row in of_name], color=tint, linewidth=1.2)
        ends = np.asarray([min(row.n for row in rows), max(row.n for row in rows)])
        axes.plot(ends, 0.5 * (ends / ends[0]) ** -0.5, "--", color="black", linewidth=1.2, label="slope −1/2")
        axes.set(title="Distance to the true distribution", xlabel="responses n", ylabel="total variation")
        style.log_axis(axes, "x")
        style.log_axis(axes, "y")
        axes.legend(loc="lower left")
