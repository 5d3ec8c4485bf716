"""``python -m mpo.run``: compose and check the configuration, print the plan, build what is missing, report.

Kept light: ``--help`` and ``--cfg job`` import no torch.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mpo.config.compose import CONFIG_NAME, register, typed
from mpo.config.messages import explain, explain_composition
from mpo.errors import EXIT_CODE, Stopped, UserError
from mpo.multirun import compare_finished
from mpo.stopping import stop

STOPPED_CODE = 143

_begun = threading.Event()
"""Whether composing is over: exceptions from then on are told by their type alone."""


class Told(Exception):
    """A member of a multirun ended by a mistake that has been told; the other members go on."""


def experiment(cfg: DictConfig) -> None:
    """One run, or one member of a multirun."""
    _begun.set()
    gc.enable()
    from mpo.runner import run  # here, because it leads to torch

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        run(typed(cfg), folder, dict(hydra_config.runtime.choices), list(hydra_config.overrides.task))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and cfg.dry_run:
            _seen_enough()
        told = explain(error)
        if told is None:
            raise
        say(told)
        if hydra_config.mode is RunMode.MULTIRUN:
            raise Told from None
        # Hydra puts a line of its own before any exception that reaches it, but lets an exit pass.
        sys.exit(EXIT_CODE)


def say(mistake: UserError) -> None:
    """Say what the user can mend."""
    print(f"mpo: error: {mistake}", file=sys.stderr)


def _seen_enough() -> NoReturn:
    """End well: what reads the plan or the help, such as head, has closed its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def main() -> None:
    """The command line; a user's mistake ends it with one line and status 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own reports and exit with 1
    signal.signal(signal.SIGTERM, stop)
    gc.disable()  # nearly all that composing makes stays: looking for garbage in it takes a tenth of its time
    try:
        hydra.main(version_base="1.3", config_path=register(), config_name=CONFIG_NAME)(experiment)()
        if not _begun.is_set():
            gc.freeze()  # and so does looking through it before the end
            sys.stdout.flush()
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and not _begun.is_set():
            _seen_enough()
        if isinstance(error, Stopped | KeyboardInterrupt):
            print("mpo: stopped; the same command goes on from where it was", file=sys.stderr)
            sys.exit(STOPPED_CODE)
        compare_finished()
        if isinstance(error, Told):
            sys.exit(EXIT_CODE)
        told = explain(error) if _begun.is_set() else explain_composition(error)
        if told is None:
            raise
        say(told)
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    # Launchers send a member's function to other processes: by its name here, which is not __main__'s.
    from mpo.run import main as command

    command()
