"""One run in a process that may have done others before: a command of its own would import everything again."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mpo.errors import UserError

LOG = "run.log"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. ``error``: one line, or None where it has a result."""

    folder: Path
    seconds: float
    error: str | None = None


def prepare(command: Connection, devices: Any) -> None:
    """First in each process that runs cells: end with the command that started it; take one group of cards.

    ``command``: readable once the command has closed its end, as it does when it stops, or has died. Ctrl-C reaches
    these processes, too, and is left to the command. ``devices``: a queue of values of CUDA_VISIBLE_DEVICES, or None
    where all processes see the same cards.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.connection.wait([command])
        os.kill(os.getpid(), signal.SIGKILL)  # what it has started ends with it

    threading.Thread(target=follow, daemon=True).start()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()


def run_cell(overrides: tuple[str, ...], folder: Path) -> Outcome:
    """Run ``python -m mpo.run`` with ``overrides`` here; what it prints goes to ``folder/run.log``."""
    import time

    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    error = None
    with _printed_to(folder / LOG):
        try:
            _run(overrides, folder)
        except UserError as mistake:
            error = str(mistake)
        except Exception as bug:  # one run's failure must not end the others
            import traceback

            traceback.print_exc()
            error = f"{type(bug).__name__}: {bug}, see {folder / LOG}"
        if error is not None:
            print(f"mpo: error: {error}", file=sys.stderr)
    return Outcome(folder, time.monotonic() - started, error)


def _run(overrides: tuple[str, ...], folder: Path) -> None:
    from mpo.config.messages import explain
    from mpo.experiments.composed import composed
    from mpo.failures.explain import explain_failure
    from mpo.pipeline.runner import run

    try:
        config, choices = composed(overrides)
        run(config, folder, choices, overrides)
    except Exception as error:
        mistake = explain(error)
        explained = explain_failure(mistake or error, folder) or mistake
        if explained is None:
            raise
        raise explained from None


@contextlib.contextmanager
def _printed_to(path: Path) -> Iterator[None]:
    """Both streams of this process and of those that it starts, appended to ``path``."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with path.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            yield
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
