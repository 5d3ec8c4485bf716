"""Build the stages of a run that are not there yet, in order, and show how far they are."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import Store, read_json, whole_lines
from mpo.cache.stage import Placement, Stage
from mpo.config.schema import LauncherConfig
from mpo.errors import UserError
from mpo.failures.explain import explain_failure
from mpo.pipeline.launch import run_group, run_inline
from mpo.pipeline.stage_process import USAGE_FILE
from mpo.pipeline.stopping import building, stop_if_asked
from mpo.report.records import StageRow
from mpo.stages.context import CONTEXT_FILE, PROGRESS_FILE, WARNINGS_FILE, StageContext
from mpo.track.console import Console
from mpo.track.metrics import MetricsFollower, read_metrics
from mpo.track.progress import ProgressReader

METRICS_FILE = "metrics.jsonl"
REFRESH_S = 0.2
FIRST_NODE_S = 300
"""Seconds that other machines wait for the first one to take up a stage: it may still be starting, or be gone."""

OnMetrics = Callable[[Stage, dict[str, Any]], None]


@dataclass
class Executor:
    """Builds stages one after the other.

    Args:
        store: where stage directories lie.
        launcher: size of process groups.
        console: what people watch.
        on_metrics: called with every record of a training stage's metrics, as it is written; also when the stage was
            cached, so that a run's log is whole.
        rows: filled with a line for every stage.
    """

    store: Store
    launcher: LauncherConfig
    console: Console
    on_metrics: OnMetrics
    rows: list[StageRow] = field(default_factory=list)

    def build(self, stage: Stage) -> Path:
        """The stage's complete directory, built now unless it is there.

        Raises:
            Stopped: the run was asked to.
        """
        building()
        stop_if_asked()
        started = time.monotonic()
        cached = self.store.complete(stage)
        if not cached:
            if self.launcher.node_rank > 0:
                self._follow_first_node(stage)
            else:
                self._rebuild_damaged(stage)
                if self.store.locked(stage):
                    self.console.line(f"{stage.name}: another run is building it; waiting")
                with self.store.lock(stage):
                    cached = self.store.repaired(stage)  # by another run, while this one waited
                    if not cached:
                        self._build(stage)
        path = self.store.path(stage)
        if cached and (path / METRICS_FILE).exists():
            for record in read_metrics(path / METRICS_FILE):
                self.on_metrics(stage, record)
        usage = self.store.manifest(stage)["usage"]
        seconds = usage["seconds"] if cached else time.monotonic() - started
        at = next((n for n, row in enumerate(self.rows) if row.name == stage.name), len(self.rows))
        busy = usage.get("card_busy")
        self.rows[at : at + 1] = [StageRow(stage.name, cached, seconds, usage["peak_memory_bytes"], str(path), busy)]
        return path

    def _rebuild_damaged(self, stage: Stage) -> None:
        """Before a stage is built: check all that it will read of other stages, and build damaged ones again."""
        if self.store.path(stage).is_dir() and (damage := self.store.damage(stage)):
            self.console.line(f"mpo: warning: {stage.name} is damaged ({damage}); it is built again")
        for other in stage.stages.values():
            if self.store.damage(other, thorough=True):
                self.build(other)

    def _build(self, stage: Stage) -> None:
        if changed := self.store.changed_code(stage):
            what = (
                f"{', '.join(changed[:3])} {'was' if len(changed) == 1 else 'were'} edited after this command started"
            )
            raise UserError(what, stage.name, "run it again; what is built so far is kept")
        work = self.store.open_work(stage)
        context = StageContext.of(stage, self.store)
        context.write()
        for old in (PROGRESS_FILE, WARNINGS_FILE):
            (work / old).unlink(missing_ok=True)
        warned = 0
        follower = MetricsFollower(work / METRICS_FILE)

        def forward_metrics() -> None:
            for record in follower.poll():
                self.on_metrics(stage, record)

        def show_warnings() -> None:
            nonlocal warned
            lines = whole_lines(work / WARNINGS_FILE).decode().splitlines()
            for line in lines[warned:]:
                self.console.line(f"mpo: warning: {stage.name}: {line}")
            warned = len(lines)

        with self.console.stage(stage.name, ProgressReader(work / PROGRESS_FILE)) as live:

            def show() -> None:
                live.refresh()
                show_warnings()
                forward_metrics()

            try:
                with _ticking(show) as failures:
                    if stage.placement is Placement.here:
                        run_inline(context)
                    else:
                        run_group(context, self.launcher, stage.placement.distributed, self.store.fingerprint(stage))
            finally:
                show_warnings()
            created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            records = list(follower.poll())
            # Before anything is shown or logged: a broken terminal or logger must not cost what was computed.
            self.store.commit(stage, {"created": created, "usage": read_json(work / USAGE_FILE)})
            for record in records:
                self.on_metrics(stage, record)
        if failures:
            why = explain_failure(failures[0]) or repr(failures[0])
            self.console.line(f"mpo: warning: {stage.name} was not shown or logged to its end: {why}")

    def _follow_first_node(self, stage: Stage) -> None:
        """On another machine than the first: take part in a distributed stage, wait for any other."""
        context_file = self.store.work_path(stage) / CONTEXT_FILE
        joined = False
        alive = time.monotonic()
        while not self.store.complete(stage):
            if self.store.locked(stage):
                alive = time.monotonic()
                if stage.placement.distributed and not joined and context_file.exists():
                    run_group(StageContext.of(stage, self.store), self.launcher, True, self.store.fingerprint(stage))
                    joined = True
            elif time.monotonic() - alive > FIRST_NODE_S:
                raise UserError(
                    f"the first machine has not begun {stage.name} for {FIRST_NODE_S} s",
                    "launcher.node_rank",
                    "look at what it printed; all machines need the same command and one cache_dir",
                )
            time.sleep(REFRESH_S)


@contextmanager
def _ticking(action: Callable[[], object]) -> Iterator[list[Exception]]:
    """Call ``action`` every now and then from another thread while the block runs; what it raised, which ends it."""
    stop = threading.Event()
    failures: list[Exception] = []

    def loop() -> None:
        while not stop.wait(REFRESH_S):
            try:
                action()
            except Exception as error:  # reported once the stage is done: a broken bar must not stop a training
                failures.append(error)
                return

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield failures
    finally:
        stop.set()
        thread.join()
