"""How a stage's process, or process group, is started: torch's elastic agent over a preloaded fork server.

The fork server has imported torch and transformers but run nothing, so a stage's process starts in a tenth of a second
with a clean device. Several machines meet through torch.distributed's rendezvous.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from mpo.artifacts import LOG_FOLDER, write_json
from mpo.config.schema import LauncherConfig
from mpo.errors import EXIT_CODE, FAILURE_CODE, ProcessError, Stopped, UserError
from mpo.failure_reports import Report, ReportBox, send
from mpo.failures import explain_failure, explain_killed, full_disk
from mpo.stages.context import CONTEXT_FILE, SUMMARY_FILE, StageContext

PRELOADED = [
    "mpo.patience",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "datasets",
    "peft",
    "mpo.config.compose",  # what the main module imports, for multiprocessing runs that again in each process
    "mpo.config.messages",
    "mpo.multirun",
]
ERROR_FILE = "error.json"
USAGE_FILE = "usage.json"
SHUTDOWN_S = 600
"""Seconds that a process has, once asked to stop, to end its step and write a checkpoint."""
GRACE_S = 5
"""Seconds that a process has to end by itself once another one of its group has told an error."""
WRITING_S = 3600
"""Seconds that other processes wait at most while the first one still writes, weights to a network's disk say."""
OPENMP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""OpenMP's threads spin for some microseconds before they sleep, unless the user has a policy. By default they spin for
milliseconds, and the processes of a machine that is shared with anything else ran several times slower; not spinning at
all makes steps of many small operators up to 1.5 times as long."""
STOPPED = 128 + signal.SIGTERM
"""Exit status of a process that wrote its checkpoint and stopped because it was asked to."""

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
    # A signal to the whole group, such as Ctrl-C, would end it with a traceback before mpo.patience is imported there.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def run_inline(context: StageContext) -> None:
    """Run a light stage in this process."""
    started = time.monotonic()
    importlib.import_module(f"mpo.stages.{context.task}").run(context)
    write_usage(context.output, started, None)  # this process holds much else


def run_group(context: StageContext, config: LauncherConfig, distributed: bool, run_id: str) -> None:
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
            with _handlers_restored(), _quiet_elastic():
                elastic_launch(launch, _work)(str(context.output), threads, box.address)
        except SignalException:
            raise Stopped from None
        except ChildFailedError as failed:
            codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
            raise _why(context, box, codes) from None
        except Exception as error:  # the agent's own: it may find no room for its files, or the fork server gone
            if isinstance(error, (EOFError, ConnectionError)):  # no network: these two talk over a socket of their own
                what = "the process that starts the stages' is gone, perhaps out of memory"
                raise ProcessError(what, context.task, "run the same command again") from None
            if told := explain_failure(error, context.output):
                raise told from None
            raise
        if nodes == 1 and not (context.output / USAGE_FILE).exists():
            raise _why(context, box, {0: 0})


def _why(context: StageContext, box: ReportBox, codes: dict[int, int]) -> BaseException:
    """Why a group of processes failed, of which those in ``codes`` ended with these exit codes."""
    logs = context.output / LOG_FOLDER
    killed = [-code for code in codes.values() if code < 0]
    first = next((one for one in killed if one != signal.SIGTERM), None)  # by which the agent ends the others
    report = box.newest(context.output / ERROR_FILE)
    if report and not (report.is_bug and first):  # a killed process breaks the connections of the others
        return report.error(logs)
    if STOPPED in codes.values():
        return Stopped()
    if told := full_disk(context.output):
        return told
    if killed:
        return explain_killed(first or killed[0], context.task, logs)
    return ProcessError(f"its processes ended with {codes}, without a word", context.task, f"its log: {logs}")


def _work(output: str, threads: int, box: str) -> None:
    """One process of a stage. If it fails it reports why to ``box`` and ends with the exit status for that."""
    _die_with_parent()
    for number in (signal.SIGTERM, signal.SIGHUP):  # which it ignores (mpo.patience)
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C reaches the whole terminal group: take it as the polite request that the agent sends as well.
    signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    folder = Path(output)
    _end_with_fellows(folder / ERROR_FILE)
    try:
        _run_stage(folder, threads)
    except SystemExit as left:
        if left.code == STOPPED:
            raise
        frame = traceback.extract_tb(left.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno}"
        mistake = UserError(f"it ended the process by exit({left.code})", where, "raise an error instead")
        report, code = Report.of_mistake(mistake), EXIT_CODE
    except Exception as error:
        told = explain_failure(error, folder) or (error if isinstance(error, UserError) else None)
        report = Report.of_mistake(told) if told else Report.of_bug(traceback.format_exc())
        code = told.exit_code if told else FAILURE_CODE
        with contextlib.suppress(OSError):  # into the log, where there is room
            traceback.print_exc()
    else:
        return
    send(report, box, folder / ERROR_FILE)
    sys.exit(code)  # the agent gets no exception: it would write one to the disk, where there may be no room


def _run_stage(folder: Path, threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    started = time.monotonic()
    context = StageContext.read(folder / CONTEXT_FILE)
    built = (folder / SUMMARY_FILE).exists()
    importlib.import_module(f"mpo.stages.{context.task}").run(context)
    if context.rank == 0:
        _keep_usage(folder, started, built)
    else:
        _wait_for_usage(folder)


def _keep_usage(output: Path, started: float, built: bool) -> None:
    """:func:`write_usage`, unless the stage was ``built`` by a process before this one, whose usage it is."""
    if not built:
        write_usage(output, started, _peak_memory())
    elif not (output / USAGE_FILE).exists():
        write_usage(output, started, None)


def _wait_for_usage(output: Path) -> None:
    """Until the first process is done: on several machines it need not be on the one that commits the stage."""
    deadline = time.monotonic() + WRITING_S
    while not (output / USAGE_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def write_usage(output: Path, started: float, peak_memory: int | None) -> None:
    """Seconds and peak memory in bytes of a stage's process, for the manifest and the report."""
    usage = {"seconds": time.monotonic() - started, "peak_memory_bytes": peak_memory, "device": _device()}
    write_json(output / USAGE_FILE, usage)


def _peak_memory() -> int:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device() -> str | None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return None


def _die_with_parent() -> None:
    """End this process when the fork server that made it is gone, or the run that asked for it, however it went.

    The run's death does not end the fork server as long as a process that it made is alive, so both are watched.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    run = multiprocessing.parent_process()
    assert run is not None, "stages are built in processes that multiprocessing started"

    def follow() -> None:
        run.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


def _end_with_fellows(error: Path) -> None:
    """End this process soon after another one of its group has told an error: it may wait in a collective for ever."""

    def follow() -> None:
        while not error.exists():
            time.sleep(0.5)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _heeded() -> list[signal.Signals]:
    """Signals for the agent to take: not those that this process ignores, as SIGHUP below ``nohup``."""
    return [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]


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
    """Keep the agent's own reports off the console: the stage's error is told once, by us."""
    import logging

    logger = logging.getLogger("torch.distributed.elastic")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
