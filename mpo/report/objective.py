"""The one estimate that a sweep looks at, by its key."""

from __future__ import annotations

from collections.abc import Sequence

from mpo.errors import ConfigError
from mpo.evaluate.records import Estimate


def objective(estimates: Sequence[Estimate], metric: str) -> Estimate:
    """The estimate with the key ``metric``; of several rounds the last where the key names none.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    found = {estimate.key: estimate for estimate in estimates}
    if metric in found:
        return found[metric]
    rounds = {estimate.key.rpartition("/round")[0]: estimate for estimate in estimates if estimate.round is not None}
    if metric in rounds:  # they stand in the order of the rounds
        return rounds[metric]
    raise ConfigError(f"the run has no estimate '{metric}'", "sweep.metric", f"choose one of {', '.join(found)}")
