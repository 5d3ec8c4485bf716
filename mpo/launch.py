"""How a stage's process, or process group, is started: torch's elastic agent over a preloaded fork server.

The fork server has imported torch and transformers but run nothing, so a stage's process starts in a tenth of a second
with a clean device. Several machines meet through torch.distributed's rendezvous.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
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
from mpo.errors import ConfigError, DataError, Stopped, UserError
from mpo.stages.context import SUMMARY_FILE, StageContext

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

_AGENT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_ERRORS = {cls.__name__: cls for cls in (UserError, ConfigError, DataError)}


class StageFailed(RuntimeError):
    """A stage's process ended by a bug of ours or was killed; the message ends with where its log lies."""


def prepare_fork_server() -> None:
    """Start importing the heavy libraries in the background; the first stage then need not wait for them."""
    from multiprocessing import forkserver

    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in OPENMP.items():
            os.environ.setdefault(name, value)
    # A library that asks for CUDA while it is imported must not initialise it, or no forked process could.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    multiprocessing.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


def run_inline(context: StageContext) -> None:
    """Run a light stage in this process."""
    started = time.monotonic()
    importlib.import_module(f"mpo.stages.{context.task}").run(context)
    write_usage(context.output, started, None)  # this process holds much else


def run_group(context: StageContext, config: LauncherConfig, distributed: bool, run_id: str) -> None:
    """Run a stage in one process, or (``distributed``) in ``nodes × processes`` of them; returns when all are done.

    Raises:
        UserError: what the stage raised as such, in one line.
        StageFailed: with the stage's traceback for everything else.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    processes = config.processes if distributed else 1
    nodes = config.nodes if distributed else 1
    threads = config.threads or max(1, len(os.sched_getaffinity(0)) // processes)
    error = context.output / ERROR_FILE
    error.unlink(missing_ok=True)
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
    )
    try:
        with _handlers_restored(), _quiet_elastic():
            elastic_launch(launch, _work)(str(context.output), threads)
    except SignalException:
        raise Stopped from None
    except ChildFailedError as failed:
        if error.exists():
            told = json.loads(error.read_text())
            if told["kind"] in _ERRORS:
                raise _ERRORS[told["kind"]](told["what"], told["where"], told["remedy"]) from None
            raise StageFailed(f"{told['traceback']}log: {logs}") from None
        codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        if STOPPED in codes.values():
            raise Stopped from None
        raise StageFailed(f"stage {context.task}: processes ended with {codes}; log: {logs}") from None


def _work(output: str, threads: int) -> None:
    """One process of a stage."""
    _die_with_parent()
    for number in (signal.SIGTERM, signal.SIGHUP):  # which it ignores (mpo.patience)
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C reaches the whole terminal group: take it as the polite request that the agent sends as well.
    signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    started = time.monotonic()
    context = StageContext.read(Path(output) / "stage.json")
    _end_with_fellows(context.output / ERROR_FILE)
    built = (context.output / SUMMARY_FILE).exists()
    try:
        importlib.import_module(f"mpo.stages.{context.task}").run(context)
    except UserError as mistake:
        kind = next(name for name in (type(mistake).__name__, "UserError") if name in _ERRORS)
        report = {"kind": kind, "what": mistake.what, "where": mistake.where, "remedy": mistake.remedy}
        write_json(context.output / ERROR_FILE, report)
        sys.exit(2)
    except Exception:
        report = {"kind": "bug", "traceback": traceback.format_exc()}
        if not (context.output / ERROR_FILE).exists():  # a fellow's mistake may be why this process broke
            write_json(context.output / ERROR_FILE, report)
        raise
    if context.rank == 0:
        _keep_usage(context.output, started, built)
    else:
        _wait_for_usage(context.output)


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


@contextlib.contextmanager
def _handlers_restored() -> Iterator[None]:
    """The agent takes the signals of this process and would keep them when its group is done."""
    before = {number: signal.getsignal(number) for number in _AGENT_SIGNALS}
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
