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

from mpo.config.schema import SweepConfig, SweepMethod
from mpo.errors import FAILURE_CODE, ConfigError
from mpo.pipeline.multirun import AlreadyReported, ComparisonPage
from mpo.report.best import best_of
from mpo.report.objective import objective
from mpo.report.records import RunReport
from mpo.report.sweep_record import Outcome, SweepRecord
from mpo.sweeps.check import check_values
from mpo.sweeps.folder import SweepFolder
from mpo.sweeps.methods import METHODS, Tried, check_method
from mpo.sweeps.space import Space, space_of
from mpo.sweeps.stopping import check_comparable, medians
from mpo.track.streams import say
from mpo.track.units import number

UNLIKE = ("launcher", "logger", "cache_dir", "results", "dry_run", "sweep.")
"""Keys in which a sweep may differ from itself: where it runs, and for how long it looks."""


def run_sweep(
    config: DictConfig, loader: ConfigLoader, launcher: Launcher, params: Mapping[str, Any], arguments: Sequence[str]
) -> None:
    """A sweep from the command line.

    Args:
        config: the composed configuration without what varies.
        loader: composes the members.
        launcher: Hydra's, set up.
        params: the search space, from ``hydra.sweeper.params``.
        arguments: overrides of the command line; they win over ``params``.

    Raises:
        ConfigError, AlreadyReported: see :meth:`Sweep.run`; a value that cannot be run, before anything is; members
            that cannot be compared while they train, where ``sweep.stop_behind`` would.
    """
    lines = [*(f"{key}={value}" for key, value in params.items()), *arguments]
    space = space_of(OverridesParser.create(config_loader=loader).parse_overrides(lines))
    first = check_values(space, config, loader)
    beside = config.hydra.launcher.get("n_jobs") or config.hydra.launcher.get("array_parallelism") or 1
    root = Path(config.hydra.sweep.dir).resolve()
    if first.sweep.stop_behind:
        check_comparable(space, first)
    beside = beside if beside > 0 else os.cpu_count() or 1
    sweep = Sweep(space, first.sweep, launcher, root, beside, first.train.keep_best)
    if first.dry_run:
        sweep.plan_only()
        return
    sweep.open()
    OmegaConf.save(config, root / "multirun.yaml")
    sweep.run()


class Sweep:
    """One sweep by one process.

    Args:
        root: the sweep's folder.
        beside: members that the launcher runs side by side.
        keep_best: the members' ``train.keep_best``, by which ``sweep.stop_behind`` compares them.

    Raises:
        ConfigError: the metric has no name, or ``keep_best`` that is needed; the method cannot look through the space.
    """

    def __init__(
        self, space: Space, sweep: SweepConfig, launcher: Launcher, root: Path, beside: int = 1,
        keep_best: str | None = None,
    ) -> None:  # fmt: skip
        if sweep.metric is None:
            raise ConfigError("has no value", "sweep.metric", "name an estimate: sweep.metric=heldout/true_reward@1")
        if sweep.stop_behind and keep_best is None:
            remedy = "add train.evaluate_every=20 train.keep_best=heldout/accuracy, say"
            raise ConfigError("it needs train.keep_best", "sweep.stop_behind", remedy)
        check_method(space, sweep)
        self.keep_best = keep_best or ""
        self.space, self.sweep, self.launcher, self.root, self.beside = space, sweep, launcher, root, beside
        self.metric = sweep.metric
        self.folder = SweepFolder(root, self._record())

    def open(self) -> None:
        """Make the folder, or look whether it is this sweep's; raises ConfigError if it holds something else."""
        try:
            self.folder.check()
        except ConfigError:
            ComparisonPage.folder = None  # what it holds is another command's to compare
            raise

    def take(self, held: ExitStack) -> list[int]:
        """Numbers of the settings to run next; ``held`` keeps their locks."""
        return self.folder.take(self._width(), self._next, self._stop_behind, held)

    def run(self) -> None:
        """Every setting, those that are done aside; :meth:`open` comes first.

        Raises:
            ConfigError: a finished member lacks the metric.
            AlreadyReported: no setting has a value, and its member has said why; or the first one lacks the metric.
        """
        say(
            f"sweep: {self._size()}, {self.sweep.method.name}; hydra.sweep.dir={self.root} goes on with it after a stop"
        )
        codes: list[int] = []
        while True:
            with ExitStack() as held:
                taken = self.take(held)
                for run in self.folder.runs():
                    objective(run.evaluation, self.metric)  # a metric that there is not ends the sweep at once
                if not taken:
                    break
                codes += self._launch(taken)
        self._close(self.folder.outcomes(), codes)

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

    def _next(self, found: Sequence[Outcome]) -> tuple[str, ...] | None:
        tried = [
            Tried(
                each.setting,
                each.mean if each.complete else None,
                not each.complete and self.folder.gave_up(each.number),
            )
            for each in found
        ]
        return METHODS[self.sweep.method](self.space, self.sweep, tried)

    def _stop_behind(self, runs: Sequence[RunReport]) -> list[float]:
        return medians([run.metrics()[-1] for run in runs], self.keep_best) if self.sweep.stop_behind else []

    def _width(self) -> int:
        """Settings taken at once: one, or what runs side by side; all where none waits for another's result."""
        waits = self.sweep.method is SweepMethod.tpe or self.sweep.stop_behind
        return self.beside if self.beside == 1 or waits else self._settings()

    def _settings(self) -> int:
        return self.space.grid_size if self.sweep.method is SweepMethod.grid else self.sweep.trials

    def _size(self) -> str:
        seeds = len(self.space.seeds)
        return f"{self._settings()} settings" + (f" with {seeds} seeds each" if seeds > 1 else "")

    def _launch(self, taken: Sequence[int]) -> list[int]:
        """Run the open members of some settings; the exit statuses of those that failed."""
        names, jobs = [], []
        for number_ in taken:
            for name, seed in self.folder.open_members(number_):
                names.append(name)
                own = self.space.overrides(self.folder.record.settings[number_], seed)
                own += _as_override(self.folder.record.stop_behind[number_:][:1])
                jobs.append([*own, f"hydra.sweep.subdir={name}"])
        returns = self.launcher.launch(jobs, initial_job_idx=int(names[0])) if jobs else []
        codes = []
        for name, done in zip(names, returns, strict=True):
            if done.status is not JobStatus.FAILED:
                continue
            codes.append(_said(name, done))
            if self.folder.is_done(name):  # only its metric was missing, as it would be for all others
                raise AlreadyReported(codes[-1])
        return codes

    def plan_only(self) -> None:
        """Plan every member and run none; raises AlreadyReported if some cannot be planned."""
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
            if each.complete:
                continue
            if self.folder.is_worked_on(each.number):
                say(f"sweep: {self._words(each)} is worked on by another process")
            else:
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


def _as_override(stop_behind: Sequence[Sequence[float]]) -> list[str]:
    return [f"train.stop_behind=[{','.join(map(repr, each))}]" for each in stop_behind if each]


def _said(name: str, done: JobReturn) -> int:
    """The exit status of a member that failed, which has said why unless it is a bug: then its traceback."""
    error = done._return_value
    if isinstance(error, AlreadyReported):
        return error.code
    say(f"sweep: member {name} ended by a bug\n{''.join(traceback.format_exception(error)).rstrip()}")
    return FAILURE_CODE
