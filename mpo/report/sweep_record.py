"""A sweep as its folder tells it: what varies, the settings that were begun, and what their members came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import read_json, write_json
from mpo.errors import ConfigError
from mpo.evaluate.records import Estimate
from mpo.report.objective import objective
from mpo.report.records import RunReport

SWEEP_FILE = "sweep.json"


@dataclass(frozen=True)
class SweepRecord:
    """What ``sweep.json`` in a sweep's folder holds.

    Attributes:
        axes: keys that vary, seeds aside.
        log: those of them that are looked through by factors.
        seeds: of each setting, '' for the configuration's own.
        space: the whole space in words, to know a sweep again.
        settings: a value for each axis, by the order in which they were begun. Setting n's members lie in the folders
            n × len(seeds), …, one a seed.
        stop_behind: of each setting, ``train.stop_behind`` of its members; empty where none has any.
    """

    metric: str
    direction: str
    method: str
    axes: tuple[str, ...]
    log: tuple[str, ...]
    seeds: tuple[str, ...]
    space: tuple[str, ...]
    settings: tuple[tuple[str, ...], ...] = ()
    stop_behind: tuple[tuple[float, ...], ...] = ()

    def members(self, number: int) -> list[str]:
        """Names of the folders of a setting's members."""
        return [str(number * len(self.seeds) + place) for place in range(len(self.seeds))]

    def with_setting(self, setting: tuple[str, ...], stop_behind: Sequence[float]) -> SweepRecord:
        """With one more setting."""
        if not self.stop_behind and not stop_behind:
            return replace(self, settings=(*self.settings, setting))
        before = self.stop_behind or ((),) * len(self.settings)
        return replace(self, settings=(*self.settings, setting), stop_behind=(*before, tuple(stop_behind)))

    def save(self, folder: Path) -> None:
        """Write it to ``folder`` atomically."""
        write_json(folder / SWEEP_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> SweepRecord | None:
        """The record in ``folder``; None where there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            record: dict[str, Any] = read_json(folder / SWEEP_FILE)
            settings = tuple(tuple(each) for each in record.pop("settings"))
            limits = [tuple(each) for each in record.pop("stop_behind", [])]
            rest: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
            }
            return cls(**rest, settings=settings, stop_behind=tuple(limits))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            where = str(folder / SWEEP_FILE)
            raise ConfigError(f"not the record of a sweep: {error}", where, "name another hydra.sweep.dir") from error


@dataclass(frozen=True)
class Outcome:
    """What a setting came to.

    ``values``: the metric of each member that has one, finite. ``failed``: members that ended without. ``error``: the
    standard error of the mean, None where it is not known.
    """

    number: int
    setting: tuple[str, ...]
    values: tuple[float, ...]
    error: float | None = None
    failed: int = 0

    @property
    def mean(self) -> float:
        """Mean over the members that have a value; NaN without any."""
        return math.fsum(self.values) / len(self.values) if self.values else math.nan

    @property
    def complete(self) -> bool:
        """Whether every member has a value: others are not ranked, for a setting that fails on one seed is no good."""
        return bool(self.values) and not self.failed


def outcomes(record: SweepRecord, runs: Mapping[str, RunReport]) -> list[Outcome]:
    """What the settings came to, in their order; ``runs`` by the name of their folder.

    Over seeds all settings share one standard deviation, that within settings (of n seeds divided by √n): a setting's
    own, of two or three seeds, would be little more than chance. With one seed the error is that of its evaluation.
    """
    found = []
    for number, setting in enumerate(record.settings):
        estimates = [_estimate(runs.get(name), record.metric) for name in record.members(number)]
        known = [each for each in estimates if each is not None]
        error = known[0].standard_error if len(known) == 1 else None
        values = tuple(each.value for each in known)
        found.append(Outcome(number, setting, values, error, len(estimates) - len(known)))
    spread = within(found)
    if spread is None:
        return found
    return [Outcome(o.number, o.setting, o.values, spread / math.sqrt(len(o.values) or 1), o.failed) for o in found]


def within(found: list[Outcome]) -> float | None:
    """Standard deviation over seeds within settings, pooled; None where no setting has two."""
    squares = math.fsum((value - each.mean) ** 2 for each in found for value in each.values)
    freedom = sum(max(0, len(each.values) - 1) for each in found)
    return math.sqrt(squares / freedom) if freedom else None


def _estimate(run: RunReport | None, metric: str) -> Estimate | None:
    if run is None:
        return None
    try:
        estimate = objective(run.evaluation, metric)
    except ConfigError:
        return None
    return estimate if math.isfinite(estimate.value) else None
