"""How the next setting of a sweep is chosen: a grid in order, at random, or learned from those that are done."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpo.config.schema import Direction, SweepConfig, SweepMethod
from mpo.errors import ConfigError
from mpo.sweeps.space import Axis, Space

if TYPE_CHECKING:
    import optuna

Setting = tuple[str, ...]
"""A value for each axis of the space."""


@dataclass(frozen=True)
class Tried:
    """A setting that was begun: its ``value`` once it is done, None while it runs; ``failed`` where it has none."""

    setting: Setting
    value: float | None = None
    failed: bool = False


Method = Callable[[Space, SweepConfig, Sequence[Tried]], Setting | None]
"""The next setting after those that were tried, in the order of their numbers; None when there is no more."""


def grid(space: Space, sweep: SweepConfig, tried: Sequence[Tried]) -> Setting | None:
    """Every combination, the last axis fastest."""
    every = itertools.product(*(axis.values for axis in space.axes))
    return next(itertools.islice(every, len(tried), None), None)


def at_random(space: Space, sweep: SweepConfig, tried: Sequence[Tried]) -> Setting | None:
    """``sweep.trials`` settings drawn independently: the n-th depends on ``sweep.seed`` and n alone."""
    number = len(tried)
    if number >= sweep.trials:
        return None
    draw = random.Random(f"{sweep.seed} {number}")
    return tuple(_drawn(axis, draw) for axis in space.axes)


def tpe(space: Space, sweep: SweepConfig, tried: Sequence[Tried]) -> Setting | None:
    """``sweep.trials`` settings by optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

    The first quarter, at least 4, is drawn at random. The n-th depends on ``sweep.seed``, n and what was known then.
    """
    if len(tried) >= sweep.trials:
        return None
    optuna = _optuna()
    distributions = {axis.key: _distribution(axis) for axis in space.axes}
    sampler = optuna.samplers.TPESampler(
        seed=(sweep.seed * 100_003 + len(tried)) % 2**32, n_startup_trials=max(4, sweep.trials // 4)
    )
    study = optuna.create_study(direction=sweep.direction.name, sampler=sampler)
    for one in tried:
        study.enqueue_trial({axis.key: _read(axis, value) for axis, value in zip(space.axes, one.setting, strict=True)})
        trial = study.ask(distributions)
        if one.failed:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif one.value is not None:
            study.tell(trial, one.value)
    asked = study.ask(distributions)
    return tuple(
        value if isinstance(value := asked.params[axis.key], str) else axis.written(value) for axis in space.axes
    )


METHODS: dict[SweepMethod, Method] = {SweepMethod.grid: grid, SweepMethod.random: at_random, SweepMethod.tpe: tpe}


def check_method(space: Space, sweep: SweepConfig) -> None:
    """Raise ConfigError where the method cannot look through the space."""
    if sweep.method is SweepMethod.grid:
        for axis in space.axes:
            if not axis.values:
                raise ConfigError("an interval has no grid", axis.key, "list values, or set sweep.method=random")
    if sweep.method is SweepMethod.tpe:
        _optuna()


def better(value: float, than: float, direction: Direction) -> bool:
    """Whether ``value`` is the better one."""
    return value > than if direction is Direction.maximize else value < than


def _drawn(axis: Axis, draw: random.Random) -> str:
    if axis.values:
        return draw.choice(axis.values)
    if axis.log:
        number = math.exp(draw.uniform(math.log(axis.low), math.log(axis.high)))
        return axis.written(min(round(number), axis.high) if axis.whole else number)
    return axis.written(
        draw.randint(int(axis.low), int(axis.high)) if axis.whole else draw.uniform(axis.low, axis.high)
    )


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    distributions = _optuna().distributions
    if axis.values:
        return distributions.CategoricalDistribution(axis.values)
    if axis.whole:
        return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _read(axis: Axis, value: str) -> str | float:
    return value if axis.values else int(value) if axis.whole else float(value)


def _optuna() -> optuna:  # type: ignore[valid-type]
    """The library, its log at warnings; raises ConfigError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        remedy = "pip install 'mpo[sweeps]', or set sweep.method=random"
        raise ConfigError("needs optuna, which is not installed", "sweep.method", remedy) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
