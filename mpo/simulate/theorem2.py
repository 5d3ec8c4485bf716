"""Theorem 2 of MPO (arXiv 2412.04628): under noise, two bins stay right where a full order does not.

k responses have true values a gap 1/k apart and are observed with Gaussian noise of standard deviation exactly β/k. The
claims: P(two bins right) ≥ 1 − U(β) and P(full order right) ≤ q^⌊(k−1)/2⌋. What is proved of two bins is a union bound
over pairs across the cut: each of the better half scores above each of the others. ``docs/theorems.md`` derives both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.special import ndtr

from mpo.report import style
from mpo.report.markdown import table
from mpo.simulate.order import accepted, full_order_right, two_bins_right
from mpo.simulate.progress import Progress, quiet
from mpo.simulate.proportions import Proportion, Verdict, proportion

RESPONSES = (4, 5, 8, 16, 32, 64)
BETAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DRAWS = 100_000
_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class Row:
    """One k and β: probabilities in ``draws`` sets, the exact values, the bounds and whether they hold.

    Attributes:
        two_bins: each of the better half (the odd one included) scores above each of the others.
        mean_split: the responses above the mean observed score are those above the mean true value; no bound is proved.
    """

    k: int
    beta: float
    two_bins: Proportion
    two_bins_exact: float
    two_bins_bound: float
    two_bins_verdict: Verdict
    full_order: Proportion
    full_order_exact: float
    full_order_bound: float
    full_order_verdict: Verdict
    mean_split: Proportion


def two_bins_bound(beta: float) -> float:
    """1 − U(β), U(β) = β/√π · exp(−1/(4β²)) + β · erfc(1/(2β)); not positive, so empty, for β above 1.06."""
    below = beta / math.sqrt(math.pi) * math.exp(-1 / (4 * beta**2)) + beta * math.erfc(1 / (2 * beta))
    return 1 - below


def full_order_bound(k: int, beta: float) -> float:
    """q^⌊(k−1)/2⌋ with q = Φ(1/(√2 β)), the probability that two responses one gap apart keep their order."""
    return float(ndtr(1 / (math.sqrt(2) * beta))) ** ((k - 1) // 2)


def simulate(
    seed: int = 0,
    ks: Sequence[int] = RESPONSES,
    betas: Sequence[float] = BETAS,
    draws: int = DRAWS,
    progress: Progress = quiet,
) -> list[Row]:
    """A row for each k (at least 2) and β. All β of one k share the noise of its draws, so their errors go together."""
    rows = []
    for done, k in enumerate(ks):
        progress(done, len(ks))
        for beta, counts in zip(betas, _counts(k, betas, draws, seed), strict=True):
            two_bins, full_order, mean_split = (proportion(int(count), draws) for count in counts)
            lower, upper = two_bins_bound(beta), full_order_bound(k, beta)
            rows.append(
                Row(
                    k=k,
                    beta=beta,
                    two_bins=two_bins,
                    two_bins_exact=two_bins_right(k, beta),
                    two_bins_bound=lower,
                    two_bins_verdict=two_bins.against_lower(lower),
                    full_order=full_order,
                    full_order_exact=full_order_right(k, beta),
                    full_order_bound=upper,
                    full_order_verdict=full_order.against_upper(upper),
                    mean_split=mean_split,
                )
            )
    return rows


def _counts(k: int, betas: Sequence[float], draws: int, seed: int) -> np.ndarray:
    """For each β: how many draws have two bins, the full order and the split at the mean right; shape (β, 3)."""
    generator = np.random.default_rng([seed, k])
    true_K = np.arange(k, dtype=np.float64)  # in units of the gap, the noise then being β
    cut, above_K = k - accepted(k), true_K > (k - 1) / 2
    counts = np.zeros((len(betas), 3), np.int64)
    for start in range(0, draws, _CHUNK):
        noise_NK = generator.standard_normal((min(_CHUNK, draws - start), k))
        for index, beta in enumerate(betas):
            score_NK = true_K + beta * noise_NK
            two_bins_N = score_NK[:, :cut].max(1) < score_NK[:, cut:].min(1)
            full_order_N = (score_NK[:, 1:] > score_NK[:, :-1]).all(1)
            mean_split_N = ((score_NK > score_NK.mean(1, keepdims=True)) == above_K).all(1)
            counts[index] += (two_bins_N.sum(), full_order_N.sum(), mean_split_N.sum())
    return counts


def findings(rows: Sequence[Row]) -> list[str]:
    """What the rows say, a sentence each."""
    lines = [
        _found("P(two bins right) is at least 1 − U(β)", [row.two_bins_verdict for row in rows]),
        _found("P(full order right) is at most q^⌊(k−1)/2⌋", [row.full_order_verdict for row in rows]),
    ]
    below = sum(row.mean_split.against_lower(row.two_bins_bound) is Verdict.BROKEN for row in rows)
    if below:
        lines.append(
            f"Read as the split at the mean of the observed scores, the first bound is broken in {below} of "
            f"{len(rows)} cells: the union bound over pairs does not cover a response that crosses the mean alone, and "
            "with an odd k one true value is the mean."
        )
    lines.append(_half_noise())
    return lines


def _found(claim: str, verdicts: Sequence[Verdict]) -> str:
    others = [each for each in (Verdict.BROKEN, Verdict.UNDECIDED) if each in verdicts]
    rest = "".join(f", {each.value} in {verdicts.count(each)}" for each in others)
    return f"{claim}: holds in {verdicts.count(Verdict.HOLDS)} of {len(verdicts)} cells{rest}."


def _half_noise() -> str:
    """With noise below β/k, which "each adjacent pair is right with probability at least q" allows."""
    k, beta = 8, 0.6
    exact, bound = full_order_right(k, beta / 2), full_order_bound(k, beta)
    return (
        f"The second bound needs noise of exactly β/k: with half of it, at k = {k} and β = {beta}, the full order is "
        f"right with probability {exact:.3f} (exact), above q^⌊(k−1)/2⌋ = {bound:.3f}."
    )


def markdown(rows: Sequence[Row]) -> str:
    """What was found and a table of all cells."""
    header = ["k", "β", "two bins right", "exact", "lower bound", "", "full order right", "exact", "upper bound", ""]
    cells = [
        [
            str(row.k),
            f"{row.beta:g}",
            str(row.two_bins),
            f"{row.two_bins_exact:.4f}",
            f"{row.two_bins_bound:.4f}",
            row.two_bins_verdict.value,
            str(row.full_order),
            f"{row.full_order_exact:.3g}",
            f"{row.full_order_bound:.3g}",
            row.full_order_verdict.value,
            str(row.mean_split),
        ]
        for row in rows
    ]
    said = "\n".join(f"- {line}" for line in findings(rows))
    note = "± is one binomial standard error, < the end of an exact 99.9 % interval; verdicts go by these intervals."
    return f"{said}\n\n{table([*header, 'split at the mean right'], cells, left=2)}\n{note}\n"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Both bounds with what was drawn and the exact values, as PNG."""
    with style.figure(path, width=10.4, height=4.2) as sheet:
        left, right = sheet.subplots(1, 2)
        _draw_two_bins(left, rows)
        _draw_full_order(right, rows)


def _draw_two_bins(axes: Axes, rows: Sequence[Row]) -> None:
    """Against β, for the smallest and the largest k: those between lie on the same line."""
    betas = sorted({row.beta for row in rows})
    grid = np.linspace(betas[0], betas[-1], 200)
    shown = sorted({min(row.k for row in rows), max(row.k for row in rows)})
    for index, (k, marker) in enumerate(zip(shown, ("o", "^"), strict=False)):
        of_k = [row for row in rows if row.k == k]
        x, tint = [row.beta for row in of_k], style.colour(index)
        axes.plot(x, [row.two_bins.value for row in of_k], marker, color=tint, label=f"two bins, k = {k}")
        axes.plot(x, [row.two_bins_exact for row in of_k], color=tint, linewidth=1.2)
        label, means = f"split at the mean, k = {k}", [row.mean_split.value for row in of_k]
        axes.plot(x, means, marker, color=tint, markerfacecolor="none", label=label)
    axes.plot(grid, [two_bins_bound(float(beta)) for beta in grid], "k--", linewidth=1.4, label="lower bound 1 − U(β)")
    axes.set(title="Two bins right", xlabel="β (noise β/k, gap 1/k)", ylabel="probability", ylim=(0, 1.03))
    axes.legend(loc="lower left")


def _draw_full_order(axes: Axes, rows: Sequence[Row]) -> None:
    """Against k, for at most four β."""
    betas = sorted({row.beta for row in rows})
    shown = [betas[index] for index in sorted({round(i) for i in np.linspace(0, len(betas) - 1, 4)})]
    for index, beta in enumerate(shown):
        of_beta = [row for row in rows if row.beta == beta]
        drawn = [row for row in of_beta if row.full_order.count]
        tint = style.colour(index)
        values, errors = [r.full_order.value for r in drawn], [r.full_order.standard_error for r in drawn]
        axes.errorbar([r.k for r in drawn], values, errors, fmt="o", color=tint, label=f"β = {beta:g}")
        axes.plot([r.k for r in of_beta], [r.full_order_exact for r in of_beta], color=tint, linewidth=1.2)
        axes.plot([r.k for r in of_beta], [r.full_order_bound for r in of_beta], "--", color=tint, linewidth=1.2)
    axes.plot([], [], "--", color="black", linewidth=1.2, label="upper bound")
    axes.plot([], [], color="black", linewidth=1.2, label="exact")
    axes.set(title="Full order right", xlabel="responses k", ylabel="probability")
    style.log_axis(axes, "x", sorted({row.k for row in rows}))
    style.log_axis(axes, "y")
    axes.set_ylim(1e-6, 2)
    axes.legend(loc="lower left")
