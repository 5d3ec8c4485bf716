"""Runs of many cells, several at a time, those that are finished not again."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from mpo.errors import DataError, ProcessError
from mpo.experiments.cells import Cell
from mpo.experiments.worker import Outcome, prepare, run_cell
from mpo.report.records import RESULT_FILE, RunReport


def result_of(folder: Path) -> RunReport | None:
    """The record of the run in ``folder``; None where it is not finished, or its record cannot be read."""
    try:
        return RunReport.load(folder)
    except (DataError, UnicodeDecodeError):
        return None


def is_damaged(folder: Path) -> bool:
    """Whether there is a record that cannot be read; the run is not finished then."""
    return (folder / RESULT_FILE).is_file() and result_of(folder) is None


def run_here(cells: Sequence[Cell], runs: Path, jobs: int, devices: Sequence[str]) -> Iterator[tuple[Cell, Outcome]]:
    """Run ``cells`` in ``jobs`` processes of this machine, in order as processes are free.

    Args:
        devices: cards of each process, as CUDA_VISIBLE_DEVICES writes them, which more processes share; empty: all see
            what this process sees.

    Raises:
        ProcessError: a process was killed; the runs that have ended are kept.
        KeyboardInterrupt: as it came; no process is left.
    """
    context = multiprocessing.get_context("spawn")
    followed, command = context.Pipe(duplex=False)
    queue = context.Queue() if devices else None
    for group in itertools.islice(itertools.cycle(devices), jobs):
        queue.put(group)  # type: ignore[union-attr]
    with followed, command, ProcessPoolExecutor(jobs, context, prepare, (followed, queue)) as pool:
        waiting: dict[Future[Outcome], Cell] = {
            pool.submit(run_cell, cell.overrides, runs / cell.key): cell for cell in cells
        }
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool:
            raise ProcessError(
                "a process that runs cells was killed, perhaps out of memory", "", "run the same command again"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            command.close()  # which ends them: the pool would wait for the runs that they are at
            raise
