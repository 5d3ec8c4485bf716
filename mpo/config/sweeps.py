"""How many runs the values of a multirun make: at least one, and no more than can be listed. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from hydra.core.override_parser.types import Override, RangeSweep

from mpo.errors import ConfigError

MEMBERS = 10_000
"""Most members of a multirun."""


def check_sweep(overrides: Sequence[Override]) -> None:
    """Raise ConfigError where some override has no value to run, or all of them together make too many runs."""
    total = 1
    for override in overrides:
        if not (override.is_sweep_override() and override.is_discrete_sweep()):
            continue
        count = _count(override)
        if count == 0:
            raise ConfigError(
                "no value to run", f"'{override.input_line}'", "name options that exist, or a range of some"
            )
        total *= count
        if total > MEMBERS:
            raise ConfigError(f"more than {MEMBERS:,} runs", f"'{override.input_line}'", "give fewer values")


def _count(override: Override) -> int:
    """Values of an override, counted up to one above the most."""
    value = override.value()
    if isinstance(value, RangeSweep):  # whose values would all be listed before they are shuffled
        start, stop, step = (number or 0 for number in (value.start, value.stop, value.step))
        if step == 0 or not all(abs(number) < math.inf for number in (start, stop, step)):  # nor nan
            raise ConfigError("a range without end", f"'{override.input_line}'", "write range(START,STOP,STEP)")
        return int(min(MEMBERS + 1, max(0, -((start - stop) // step))))
    return sum(1 for _ in itertools.islice(override.sweep_iterator(), MEMBERS + 1))
