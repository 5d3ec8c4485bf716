"""What a sweep varies, from Hydra's overrides: lists of values, ranges and intervals; seeds stand apart. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override

from mpo.config.sweeps import check_sweep
from mpo.errors import ConfigError

SEED = "seed"
"""The key whose values repeat a setting and are no part of it."""


@dataclass(frozen=True)
class Axis:
    """One key and what it may be: ``values`` as the command line writes them, or, without any, an interval.

    ``whole``: the interval holds whole numbers. ``log``: it is looked through by factors, not by differences.
    """

    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        """Values that a check has to look at: all of a list, both ends of an interval."""
        return self.values or (self.written(self.low), self.written(self.high))

    def written(self, number: float) -> str:
        """A number of the interval as an override's value, to four digits and not beyond the ends."""
        if self.whole:
            return str(int(number))
        return repr(min(max(float(f"{number:.4g}"), self.low), self.high))


@dataclass(frozen=True)
class Space:
    """The axes of a sweep, the seeds of each setting, and the overrides that all members share."""

    axes: tuple[Axis, ...]
    seeds: tuple[str, ...]
    fixed: tuple[str, ...]

    @property
    def grid_size(self) -> int:
        """Settings of the whole grid."""
        return math.prod(len(axis.values) for axis in self.axes)

    def overrides(self, setting: Sequence[str], seed: str) -> list[str]:
        """The overrides of a member: a value for each axis, and a seed ('' leaves it to the configuration)."""
        chosen = [f"{axis.key}={value}" for axis, value in zip(self.axes, setting, strict=True)]
        return [*self.fixed, *chosen, *([f"{SEED}={seed}"] if seed else [])]


def space_of(overrides: Sequence[Override]) -> Space:
    """The space that overrides span; of several for one key the last counts.

    Raises:
        ConfigError: nothing varies, a range without values or end, more than 10,000 members, an interval that is empty.
    """
    last = {override.get_key_element(): override for override in overrides}
    check_sweep(list(last.values()))
    fixed = tuple(str(one.input_line) for one in last.values() if not one.is_sweep_override())
    seeds: tuple[str, ...] = ("",)
    axes = []
    for key, override in last.items():
        if not override.is_sweep_override():
            continue
        axis = _axis(key, override)
        if key != SEED:
            axes.append(axis)
        elif axis.values:
            seeds = axis.values
        else:
            raise ConfigError("an interval of seeds", SEED, "list them: seed=0,1,2")
    if not axes:
        raise ConfigError("nothing varies but seeds", "sweep", "choose +sweep=NAME, or give values: loss.beta=0.1,0.3")
    return Space(tuple(axes), seeds, fixed)


def _axis(key: str, override: Override) -> Axis:
    if override.is_discrete_sweep():
        return Axis(key, tuple(dict.fromkeys(str(value) for value in override.sweep_string_iterator())))
    sweep = override.value()
    assert isinstance(sweep, IntervalSweep)
    low, high = sweep.start, sweep.end
    log = "log" in sweep.tags
    where = f"'{override.input_line}'"
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError("an interval without numbers in it", where, "write interval(LOW,HIGH)")
    if log and low <= 0:
        raise ConfigError("a logarithmic interval begins above 0", where, "write tag(log,interval(LOW,HIGH))")
    if unknown := sorted(sweep.tags - {"log"}):
        raise ConfigError(f"'{unknown[0]}' is no known tag", where, "write tag(log,interval(LOW,HIGH))")
    return Axis(key, (), float(low), float(high), isinstance(low, int) and isinstance(high, int), log)
