"""Runs as jobs of a Slurm cluster, through submitit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpo.errors import ConfigError
from mpo.experiments.cells import Cell
from mpo.experiments.worker import Outcome, run_cell

LOOK_S = 5.0


def run_on_slurm(
    cells: Sequence[Cell],
    runs: Path,
    parameters: Mapping[str, str],
    gpus: int,
    jobs: int,
    cluster: str | None = None,
    look_s: float = LOOK_S,
) -> Iterator[tuple[Cell, Outcome]]:
    """Submit ``cells`` as one array of jobs, ``jobs`` of them at a time.

    Args:
        parameters: of submitit's executor, such as ``timeout_min`` or ``slurm_partition``.
        cluster: submitit's; None: Slurm.
        look_s: seconds between two looks at the jobs.

    Raises:
        ConfigError: submitit is not installed, Slurm is not there, or a parameter is not one of its own.
        KeyboardInterrupt: as it came; jobs that have not ended are cancelled.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("needs submitit", "launcher=slurm", "pip install 'mpo[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=runs / "slurm", cluster=cluster or "slurm")
        executor.update_parameters(**{key: _plain(value) for key, value in parameters.items()})
        if cluster is None:
            executor.update_parameters(gpus_per_node=gpus, slurm_array_parallelism=jobs)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise ConfigError(str(error).partition("\n")[0], "launcher=slurm", "see submitit's documentation") from None
    waiting: dict[Any, Cell] = {}
    with executor.batch():
        submitted = [executor.submit(run_cell, cell.overrides, runs / cell.key) for cell in cells]
    waiting = dict(zip(submitted, cells, strict=True))
    try:
        while waiting:
            for job in [one for one in waiting if one.done()]:
                cell = waiting.pop(job)
                failure = job.exception()
                yield cell, job.result() if failure is None else Outcome(runs / cell.key, 0.0, _last_line(failure))
            if waiting:
                time.sleep(look_s)
    finally:
        for job in waiting:
            job.cancel(check=False)


def _last_line(failure: BaseException) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[-1]


def _plain(value: str) -> int | str:
    return int(value) if value.isdecimal() else value
