"""Figures of what scorers gave the sampled sets, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpo.report.curves import Drawn
from mpo.report.records import RankedScores
from mpo.report.style import INSIDE, figure, legend, placed_axes, shade


def score_figures(scores: Sequence[RankedScores], folder: Path) -> list[Drawn]:
    """Two figures a scorer, with a line a round: mean scores by rank, and how far neighbours are apart.

    Args:
        folder: where the PNG files go.
    """
    drawn = []
    for number, scorer in enumerate(dict.fromkeys(one.scorer for one in scores)):
        rounds = [one for one in scores if one.scorer == scorer and len(one.mean) > 1]
        if not rounds:
            continue
        role = "trained on" if rounds[0].trains else "not trained on"
        path, title = folder / f"scores_{number}_by_rank.png", f"{scorer} by rank"
        with figure(path, fitted=False) as sheet:
            axes = placed_axes(sheet, 0.84 if len(rounds) > INSIDE else 0.97)
            for index, one in enumerate(rounds):
                ranks = range(len(one.mean))
                axes.plot(ranks, one.mean, marker="o", color=shade(index, len(rounds)), label=f"round {one.round}")
            axes.set(title=title, xlabel="rank, 0 is the best response of a set", ylabel=f"mean score ({role})")
            axes.set_xticks(range(max(len(one.mean) for one in rounds)))
            legend(axes)
        drawn.append(Drawn(path, title, "Scores of the sampled training sets."))
        path, title = folder / f"scores_{number}_spacing.png", f"Spacing of {scorer}"
        with figure(path, fitted=False) as sheet:
            axes = placed_axes(sheet, 0.84 if len(rounds) > INSIDE else 0.97)
            for index, one in enumerate(rounds):
                gaps = [better - worse for better, worse in zip(one.mean, one.mean[1:], strict=False)]
                places = [rank + 0.5 for rank in range(len(gaps))]
                axes.plot(places, gaps, marker="o", color=shade(index, len(rounds)), label=f"round {one.round}")
            axes.set(title=title, xlabel="between neighbouring ranks", ylabel="mean difference of scores")
            axes.set_xticks(range(max(len(one.mean) for one in rounds)))
            axes.set_ylim(bottom=0)
            legend(axes)
        drawn.append(Drawn(path, title, "How far the scores of neighbouring responses are apart (MPO, figure 10)."))
    return drawn
