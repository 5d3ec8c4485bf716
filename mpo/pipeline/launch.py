"""How a stage's process, or process group, is started: torch's elastic agent over a preloaded fork server.

The fork server has imported torch and transformers but run nothing, so a stage's process starts in a tenth of a second
with a clean device. Several machines meet through torch.distributed's rendezvous.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from mpo.cache.artifacts import LOG_FOLDER
from mpo.config.schema import LauncherConfig
from mpo.errors import ProcessError, Stopped
from mpo.failures.explain import explain_failure, explain_killed, full_disk
from mpo.pipeline.failure_reports import ReportBox
from mpo.pipeline.stage_process import ERROR_FILE, STOPPED, USAGE_FILE, work, write_usage
from mpo.stages.context import StageContext

PRELOADED = [
    "mpo.pipeline.forkserver_signals",
    "mpo.pipeline.forkserver_logging",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "datasets",
    "peft",
    "mpo.config.compose",  # what the main module imports, for multiprocessing runs that again in each process
    "mpo.config.messages",
    "mpo.pipeline.multirun",
    "mpo.pipeline.preloaded",
]
SHUTDOWN_S = 600
"""Seconds that a process has, once asked to stop, to end its step and write a checkpoint."""
OPENMP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""OpenMP's threads spin for some microseconds before they sleep, unless the user has a policy. By default they spin for
milliseconds, and the processes of a machine that is shared with anything else ran several times slower; not spinning at
all makes steps of many small operators up to 1.5 times as long."""

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that ask a run to stop, which torch's agent takes while a group is at work."""


_TRACKER_SILENT = "ignore:resource_tracker"


def prepare_fork_server() -> None:
    """Start importing the heavy libraries in the background; the first stage then need not wait for them."""
    from multiprocessing import forkserver, resource_tracker

    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in OPENMP.items():
            os.environ.setdefault(name, value)
    # A library that asks for CUDA while it is imported must not initialise it, or no forked process could.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    multiprocessing.set_forkserver_preload(PRELOADED)
    # It removes what a stopped run has left, and its warning of that would come after the run's last line.
    sys.warnoptions.append(_TRACKER_SILENT)
    resource_tracker.ensure_running()  # it sets this process's signal mask, so before what follows
    sys.warnoptions.remove(_TRACKER_SILENT)
    # A signal to the whole group, such as Ctrl-C, would end it with a traceback before it has imported
    # mpo.pipeline.forkserver_signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def run_inline(context: StageContext[Any, Any, Any]) -> None:
    """Run a light stage in this process."""
    started = time.monotonic()
    importlib.import_module(f"mpo.stages.{context.task}").run(context)
    write_usage(context.output, started, None)  # this process holds much else


def run_group(context: StageContext[Any, Any, Any], config: LauncherConfig, distributed: bool, run_id: str) -> None:
    """Run a stage in one process, or (``distributed``) in ``nodes × processes`` of them; returns when all are done.

    Raises:
        UserError: what the stage raised as such, in one line; a failure of the surroundings.
        ProcessError: a process was killed.
        StageFailed: with the stage's traceback for everything else.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    processes = config.processes if distributed else 1
    nodes = config.nodes if distributed else 1
    threads = config.threads or max(1, len(os.sched_getaffinity(0)) // processes)
    (context.output / ERROR_FILE).unlink(missing_ok=True)
    logs = context.output / LOG_FOLDER
    logs.mkdir(exist_ok=True)
    launch = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint=config.rendezvous if nodes > 1 else "localhost:0",
        run_id=run_id,
        start_method="forkserver",
        max_restarts=0,
        monitor_interval=0.05,
        shutdown_timeout=SHUTDOWN_S,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL),
        signals_to_handle=",".join(number.name for number in _heeded()),
    )
    with ReportBox() as box:
        try:
            with _handlers_restored(), _quiet_elastic(), killed_workers_noticed():
                elastic_launch(launch, work)(str(context.output), threads, box.address)
        except SignalException:
            raise Stopped from None
        except ChildFailedError as failed:
            codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
            raise _why(context, box, codes) from None
        except Exception as error:  # the agent's own: it may find no room for its files, or the fork server gone
            if isinstance(error, (EOFError, ConnectionError)):  # no network: these two talk over a socket of their own
                what = "the process that starts the stages' is gone, perhaps out of memory"
                raise ProcessError(what, context.task, "run the same command again") from None
            if explained := explain_failure(error, context.output):
                raise explained from None
            raise
        if nodes == 1 and not (context.output / USAGE_FILE).exists():
            raise _why(context, box, {0: 0})


def _why(context: StageContext[Any, Any, Any], box: ReportBox, codes: dict[int, int]) -> BaseException:
    """Why a group of processes failed, of which those in ``codes`` ended with these exit codes."""
    logs = context.output / LOG_FOLDER
    killed = [-code for code in codes.values() if code < 0]
    first = next((one for one in killed if one != signal.SIGTERM), None)  # by which the agent ends the others
    report = box.newest(context.output / ERROR_FILE)
    if report and not (report.is_bug and first):  # a killed process breaks the connections of the others
        return report.error(logs)
    if STOPPED in codes.values():
        return Stopped()
    if explained := full_disk(context.output):
        return explained
    if killed:
        return explain_killed(first or killed[0], context.task, logs)
    return ProcessError(f"its processes ended with {codes}, without a word", context.task, f"its log: {logs}")


def _heeded() -> list[signal.Signals]:
    """Signals for the agent to take: not those that this process ignores, as SIGHUP below ``nohup``."""
    return [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]


class PipeEvent:
    """The two methods of ``multiprocessing.Event`` that torch's agent uses, by the end of a pipe.

    Setting an event of multiprocessing waits until each process that waits for it has woken up, and so for ever where
    one of them was killed meanwhile. A copy of this one in another process can only wait.
    """

    def __init__(self) -> None:
        self._end, self._held = multiprocessing.Pipe(duplex=False)

    def __getstate__(self) -> multiprocessing.connection.Connection:
        return self._end

    def __setstate__(self, end: multiprocessing.connection.Connection) -> None:
        self._end = end

    def wait(self) -> None:
        """Until it is set, or the process that could set it is gone."""
        self._end.poll(None)

    def set(self) -> None:
        self._held.close()


@contextlib.contextmanager
def killed_workers_noticed() -> Iterator[None]:
    """torch's agent hangs where a process is killed, or it is to stop itself, once a process has done its work; here
    it doesn't."""
    from torch.distributed.elastic import multiprocessing as elastic

    original = elastic.MultiprocessContext

    class Context(original):  # type: ignore[misc, valid-type]
        def __init__(self, *args: object, **named: object) -> None:
            super().__init__(*args, **named)
            self._worker_finished_event = PipeEvent()

        def close(self, *args: object, **named: object) -> None:
            # A process that has just done its work waits for word that all have, while the agent waits for its end.
            self._worker_finished_event.set()
            super().close(*args, **named)

    elastic.MultiprocessContext = Context  # type: ignore[misc]
    try:
        yield
    finally:
        elastic.MultiprocessContext = original  # type: ignore[misc]


@contextlib.contextmanager
def _handlers_restored() -> Iterator[None]:
    """The agent takes the signals of this process and would keep them when its group is done."""
    before = {number: signal.getsignal(number) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_elastic() -> Iterator[None]:
    """Keep the agent's own reports off the console: the stage's error is reported once, by us.

    Its rendezvous notes each step with the name of the calling function, which it gets by reading the source of every
    function on the stack, 0.2 s a stage; the notes go nowhere.
    """
    import logging

    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    logger = logging.getLogger("torch.distributed.elastic")
    level, caller = logger.level, dynamic_rendezvous.get_method_name
    logger.setLevel(logging.CRITICAL)
    dynamic_rendezvous.get_method_name = lambda depth=2: "unnamed"
    try:
        yield
    finally:
        logger.setLevel(level)
        dynamic_rendezvous.get_method_name = caller
