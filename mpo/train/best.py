"""The best of a training's evaluations, and whether it is time to stop. It follows from the metrics' rows. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpo.errors import DataError

LOSS, REWARD = "heldout/loss", "heldout/reward"
HIGHER = {LOSS: False, "heldout/accuracy": True, "heldout/margin": True, REWARD: True}
"""Metrics that evaluations can be compared by, and whether more is better."""


@dataclass
class Evaluations:
    """What the evaluations so far amount to.

    Args:
        metric: key of :data:`HIGHER`; None: nothing is compared.
        stop_after: evaluations without improvement after which training stops; None: never.
        stop_behind: of each evaluation, the value that the best one up to there has to reach, or training stops.

    Attributes:
        step: of the best evaluation, of equal ones the first; 0 before there is one.
        value: its metric.
        count: evaluations so far; ``without``: those since the best.
        behind: whether it has fallen short of ``stop_behind``.
    """

    metric: str | None
    stop_after: int | None
    stop_behind: Sequence[float] = ()
    step: int = 0
    value: float = math.nan
    count: int = 0
    without: int = 0
    behind: bool = False

    def add(self, row: Mapping[str, Any]) -> bool:
        """Look at one step's metrics; returns whether they are the best so far. Steps without evaluation are none."""
        if self.metric is None or self.metric not in row:
            return False
        value, higher = row[self.metric], HIGHER[self.metric]
        improved = _better(value, self.value, higher)
        if improved:
            self.step, self.value, self.without = row["step"], value, 0
        else:
            self.without += 1
        wanted = self.stop_behind[self.count] if self.count < len(self.stop_behind) else math.nan
        self.count += 1
        if not math.isnan(wanted) and (math.isnan(self.value) or _better(wanted, self.value, higher)):
            self.behind = True
        return improved

    def check(self, row: Mapping[str, Any]) -> None:
        """Raise DataError if the evaluation of ``row`` has no value of the metric: no later one will have any."""
        if self.metric is not None and self.metric not in row:
            what = "the held-out sets give no value: none of them has what it is computed from"
            raise DataError(what, f"train.keep_best={self.metric}", "choose another metric, or hold out other sets")

    @property
    def over(self) -> bool:
        """Whether training stops here."""
        return self.behind or (self.stop_after is not None and self.without >= self.stop_after)


def _better(value: float | None, than: float, higher: bool) -> bool:
    if value is None or not math.isfinite(value):  # the metrics' file has null for these
        return False
    return math.isnan(than) or (value > than if higher else value < than)
