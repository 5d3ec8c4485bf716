"""Whether a training goes wrong without a number that is not finite. It follows from the metrics' rows. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STEPS = 5
"""Successive steps that a number stays beyond its bound."""
KL = 1.0
"""Nats a token, of the k3 estimate of KL(reference || policy). Of the testbed's ordinary runs no five steps in a row
have more than 0.7."""
FALL = 1.0
"""Nats a token by which the accepted responses' log-probs may fall below those of the first step."""
RISE = 0.5
"""By which the loss may rise above the first step's at least; else by as much as that was."""


@dataclass
class Divergence:
    """Numbers beyond their bounds, step by step.

    Attributes:
        step: at which the training counted as diverged; 0: it has not.
        reason: which number, its value and its bound.
    """

    step: int = 0
    reason: str = ""
    _first: dict[str, Any] = field(default_factory=dict)
    _beyond: dict[str, int] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> bool:
        """Look at one step's metrics; returns whether the training counts as diverged from this step on."""
        if self.step:
            return False
        self._first = self._first or dict(row)
        for name, (value, bound) in self._bounded(row).items():
            self._beyond[name] = self._beyond.get(name, 0) + 1 if value > bound else 0
            if self._beyond[name] == STEPS:
                self.step = row["step"]
                self.reason = f"{name} {value:.3g}, above {bound:.3g} for {STEPS} steps"
                return True
        return False

    def _bounded(self, row: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
        """Values and their bounds by what they are; without those that a loss does not have or that are not finite."""
        found = {}
        if row.get("kl") is not None:
            found["kl"] = (row["kl"], KL)
        first, loss = self._first.get("loss"), row.get("loss")
        if first is not None and loss is not None:
            found["loss"] = (loss, first + max(abs(first), RISE))
        before, now = _accepted(self._first), _accepted(row)
        if before is not None and now is not None:
            found["fall of the accepted responses' log-prob a token"] = (before - now, FALL)
        return found


def _accepted(row: Mapping[str, Any]) -> float | None:
    """Mean log-prob of the accepted responses, over the mean length of all."""
    logps, length = row.get("logps/chosen"), row.get("response_length")
    return None if logps is None or not length else logps / length
