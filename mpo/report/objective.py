"""The one estimate that a sweep looks at, by its key."""

from __future__ import annotations

from collections.abc import Sequence

from mpo.errors import ConfigError
from mpo.evaluate.records import Estimate, by_key


def objective(estimates: Sequence[Estimate], metric: str) -> Estimate:
    """The estimate with the key ``metric``; of several rounds the last where the key names none.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    found = by_key(estimates)
    if metric in found:
        return found[metric]
    rounds = {key.replace(f"/round{each.round}", ""): each for key, each in found.items() if each.round is not None}
    if metric in rounds:  # they stand in the order of the rounds
        return rounds[metric]
    raise ConfigError(f"the run has no estimate '{metric}'", "sweep.metric", f"choose one of {', '.join(found)}")
