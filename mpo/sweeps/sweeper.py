"""A sweep from its space to its last member: settings are taken, run by Hydra's launcher and compared."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from mpo.config.compose import typed
from mpo.config.files import with_own_shape
from mpo.config.schema import RunConfig, SweepMethod
from mpo.errors import FAILURE_CODE, ConfigError
from mpo.pipeline.multirun import AlreadyReported, ComparisonPage
from mpo.pipeline.rules import validate
from mpo.report.best import best_of
from mpo.report.objective import objective
from mpo.report.sweep_record import Outcome, SweepRecord
from mpo.sweeps.folder import SweepFolder
from mpo.sweeps.methods import METHODS, Tried, check_method
from mpo.sweeps.space import space_of
from mpo.track.streams import say
from mpo.track.units import number

UNLIKE = ("launcher", "logger", "cache_dir", "dry_run", "sweep.")
"""Keys in which a sweep may differ from itself: where it runs, and for how long it looks."""


class Sweep:
    """One sweep by one process.

    Args:
        config: the composed configuration without what varies.
        loader: composes the members.
        launcher: Hydra's, set up.
        params: of the search space, from ``hydra.sweeper.params``.
        arguments: overrides of the command line; they win over ``params``.
    """

    def __init__(
        self,
        config: DictConfig,
        loader: ConfigLoader,
        launcher: Launcher,
        params: Mapping[str, Any],
        arguments: Sequence[str],
    ) -> None:
        lines = [*(f"{key}={value}" for key, value in params.items()), *arguments]
        self.space = space_of(OverridesParser.create(config_loader=loader).parse_overrides(lines))
        self.launcher, self._loader, self._config = launcher, loader, config
        first = self._check_values()
        self.sweep, self.dry = first.sweep, first.dry_run
        if self.sweep.metric is None:
            raise ConfigError("has no value", "sweep.metric", "name an estimate: sweep.metric=heldout/true_reward@1")
        self.metric = self.sweep.metric
        check_method(self.space, self.sweep)

    def run(self) -> None:
        """Every setting, those that are done aside.

        Raises:
            ConfigError: the folder holds something else, or a finished member lacks the metric.
            AlreadyReported: no setting has a value, and its member has said why; or the first one lacks the metric.
        """
        root = Path(self._config.hydra.sweep.dir).resolve()
        if self.dry:
            self._plan_only()
            return
        folder = self._opened(root)
        say(f"sweep: {self._size()}, {self.sweep.method.name}; hydra.sweep.dir={root} goes on with it after a stop")
        codes = []
        while True:
            with ExitStack() as held:
                taken = folder.take(self._width(), lambda found: self._next(found, folder), held)
                for run in folder.runs():
                    objective(run.evaluation, self.metric)  # a metric that there is not ends the sweep at once
                if not taken:
                    break
                codes += self._launch(folder, taken)
        self._close(folder.outcomes(), codes)

    def _check_values(self) -> RunConfig:
        """Compose and check each value once, beside the first of the others; returns the first member's configuration.

        Which values fit together only their member can tell; it fails alone.
        """
        first = [axis.ends[0] for axis in self.space.axes]
        config = self._checked(first, self.space.seeds[0])
        for place, axis in enumerate(self.space.axes):
            for value in axis.ends[1:]:
                self._checked([*first[:place], value, *first[place + 1 :]], self.space.seeds[0])
        for seed in self.space.seeds[1:]:
            self._checked(first, seed)
        return config

    def _checked(self, setting: Sequence[str], seed: str) -> RunConfig:
        composed = self._loader.load_sweep_config(self._config, self.space.overrides(setting, seed))
        OmegaConf.set_struct(composed, False)
        config = with_own_shape(typed(composed))
        validate(config)
        return config

    def _opened(self, root: Path) -> SweepFolder:
        folder = SweepFolder(root, self._record())
        try:
            folder.check()
        except ConfigError:
            ComparisonPage.folder = None  # what it holds is another command's to compare
            raise
        OmegaConf.save(self._config, root / "multirun.yaml")
        return folder

    def _record(self) -> SweepRecord:
        axes = self.space.axes
        words = [f"{axis.key}={','.join(axis.values) or f'{axis.low:g} to {axis.high:g}'}" for axis in axes]
        like = [line for line in self.space.fixed if not line.lstrip("+~").startswith(UNLIKE)]
        how = [f"sweep.method={self.sweep.method.name}", f"sweep.seed={self.sweep.seed}"]
        return SweepRecord(
            metric=self.metric,
            direction=self.sweep.direction.name,
            method=self.sweep.method.name,
            axes=tuple(axis.key for axis in axes),
            log=tuple(axis.key for axis in axes if axis.log),
            seeds=self.space.seeds,
            space=(*words, *like, *how),
        )

    def _next(self, found: Sequence[Outcome], folder: SweepFolder) -> tuple[str, ...] | None:
        tried = [
            Tried(each.setting, each.mean if each.complete else None, not each.complete and folder.gave_up(each.number))
            for each in found
        ]
        return METHODS[self.sweep.method](self.space, self.sweep, tried)

    def _width(self) -> int:
        """Settings taken at once: what the launcher runs side by side, all of them where none waits for another."""
        launcher = self._config.hydra.launcher
        jobs = launcher.get("n_jobs") or launcher.get("array_parallelism") or 1
        if jobs == 1 or self.sweep.method is SweepMethod.tpe:
            return int(jobs) if jobs > 0 else os.cpu_count() or 1
        return self._settings()

    def _settings(self) -> int:
        return self.space.grid_size if self.sweep.method is SweepMethod.grid else self.sweep.trials

    def _size(self) -> str:
        seeds = len(self.space.seeds)
        return f"{self._settings()} settings" + (f" with {seeds} seeds each" if seeds > 1 else "")

    def _launch(self, folder: SweepFolder, taken: Sequence[int]) -> list[int]:
        """Run the open members of some settings; the exit statuses of those that failed."""
        names, jobs = [], []
        for number_ in taken:
            for name, seed in folder.open_members(number_):
                names.append(name)
                own = self.space.overrides(folder.record.settings[number_], seed)
                jobs.append([*own, f"hydra.sweep.subdir={name}"])
        returns = self.launcher.launch(jobs, initial_job_idx=int(names[0])) if jobs else []
        codes = []
        for name, done in zip(names, returns, strict=True):
            if done.status is not JobStatus.FAILED:
                continue
            codes.append(_said(name, done))
            if folder.is_done(name):  # only its metric was missing, as it would be for all others
                raise AlreadyReported(codes[-1])
        return codes

    def _plan_only(self) -> None:
        tried: list[Tried] = []
        while (setting := METHODS[self.sweep.method](self.space, self.sweep, tried)) is not None:
            tried.append(Tried(setting))
        jobs = [self.space.overrides(each.setting, seed) for each in tried for seed in self.space.seeds]
        failed = [
            _said(str(place), done)
            for place, done in enumerate(self.launcher.launch(jobs, initial_job_idx=0))
            if done.status is JobStatus.FAILED
        ]
        if failed:
            raise AlreadyReported(failed[0])

    def _close(self, found: Sequence[Outcome], codes: Sequence[int]) -> None:
        record = self._record()
        for each in found:
            if not each.complete:
                say(f"sweep: no value for {self._words(each)}: {each.failed} of {len(record.seeds)} members have none")
        best = best_of(found, record)
        if best is None:
            raise AlreadyReported(codes[0] if codes else FAILURE_CODE)
        near = best.others_within(1)
        beside = "" if near is None else f"; of {len(best.ranked) - 1} others {near} are within one standard error"
        mean = number(best.outcome.mean, best.outcome.error)
        say(f"sweep: the best is {self._words(best.outcome)} with {self.metric} {mean}{beside}")
        if best.expected is not None:
            say(f"sweep: expect {number(best.expected.value)} of it when it is tried again ({best.expected.how})")

    def _words(self, outcome: Outcome) -> str:
        return " ".join(f"{axis.key}={value}" for axis, value in zip(self.space.axes, outcome.setting, strict=True))


def _said(name: str, done: JobReturn) -> int:
    """The exit status of a member that failed, which has said why unless it is a bug: then its traceback."""
    error = done._return_value
    if isinstance(error, AlreadyReported):
        return error.code
    say(f"sweep: member {name} ended by a bug\n{''.join(traceback.format_exception(error)).rstrip()}")
    return FAILURE_CODE
