"""A stage's process from its first line to its exit status: the stage, its usage, and how it ends with its group."""

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
from pathlib import Path

from mpo.cache.artifacts import write_json
from mpo.errors import EXIT_CODE, FAILURE_CODE, UserError
from mpo.failures.explain import explain_failure
from mpo.pipeline.failure_reports import Report, send
from mpo.stages.context import CONTEXT_FILE, StageContext
from mpo.stages.nodes.train import TASK
from mpo.stages.summary import SUMMARY_FILE
from mpo.track.card_busy import CardBusy

ERROR_FILE = "error.json"
USAGE_FILE = "usage.json"
GRACE_S = 5
"""Seconds that a process has to end by itself once another one of its group has reported an error."""
WRITING_S = 3600
"""Seconds that other processes wait at most while the first one still writes, weights to a network's disk say."""
ALLOCATOR = "PYTORCH_ALLOC_CONF"
ALLOCATORS = (ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Variables that set up PyTorch's allocator for cards, the newest name first."""
STOPPED = 128 + signal.SIGTERM
"""Exit status of a process that wrote its checkpoint and stopped because it was asked to."""


def work(output: str, threads: int, box: str) -> None:
    """One process of a stage. If it fails it reports why to ``box`` and ends with the exit status for that."""
    _die_with_parent()
    take_signals()
    folder = Path(output)
    _exit_if_peer_failed(folder / ERROR_FILE)
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
        explained = explain_failure(error, folder) or (error if isinstance(error, UserError) else None)
        report = Report.of_mistake(explained) if explained else Report.of_bug(traceback.format_exc())
        code = explained.exit_code if explained else FAILURE_CODE
        with contextlib.suppress(OSError):  # into the log, where there is room
            traceback.print_exc()
    else:
        return
    send(report, box, folder / ERROR_FILE)
    sys.exit(code)  # the agent gets no exception: it would write one to the disk, where there may be no room


def take_signals() -> None:
    """Take requests to stop, which the fork server has blocked (:mod:`mpo.pipeline.forkserver_signals`)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C reaches the whole terminal group: take it as the agent's own request for a graceful shutdown.
    signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGHUP, signal.SIGINT))


def _run_stage(folder: Path, threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    started = time.monotonic()
    context = StageContext.read(folder / CONTEXT_FILE)
    if context.task == TASK.name and torch.cuda.is_available():
        use_expandable_segments()
    built = (folder / SUMMARY_FILE).exists()
    with CardBusy() as card:
        importlib.import_module(f"mpo.stages.{context.task}").run(context)
    if context.rank == 0:
        _keep_usage(folder, started, built, card.share)
    else:
        _wait_for_usage(folder)


def use_expandable_segments() -> None:
    """Let PyTorch's allocator grow its segments, unless the user has set it up.

    Micro-batches differ in length, and fixed segments cut for one length are lost for the next. Engines that sample are
    left alone: vLLM has memory pools that do not go with it. PyTorch reads the variable when it first takes memory on a
    card, which no process has done that came from the fork server. Not yet run on a card.
    """
    if not any(name in os.environ for name in ALLOCATORS):
        os.environ[ALLOCATOR] = "expandable_segments:True"


def _keep_usage(output: Path, started: float, built: bool, card_busy: float | None) -> None:
    """:func:`write_usage`, unless the stage was ``built`` by a process before this one, whose usage it is."""
    if not built:
        write_usage(output, started, _peak_memory(), card_busy)
    elif not (output / USAGE_FILE).exists():
        write_usage(output, started, None)


def _wait_for_usage(output: Path) -> None:
    """Until the first process is done: on several machines it need not be on the one that commits the stage."""
    deadline = time.monotonic() + WRITING_S
    while not (output / USAGE_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def write_usage(output: Path, started: float, peak_memory: int | None, card_busy: float | None = None) -> None:
    """Seconds, peak memory in bytes, and the share of the time in which the card was at work, of a stage's (first)
    process, for the manifest and the report."""
    usage = {
        "seconds": time.monotonic() - started,
        "peak_memory_bytes": peak_memory,
        "device": _device(),
        "card_busy": card_busy,
    }
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


def _exit_if_peer_failed(error: Path) -> None:
    """End this process soon after another one of its group has reported an error: a collective would wait for ever."""

    def follow() -> None:
        while not error.exists():
            time.sleep(0.5)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
