"""``python -m mpo.run``: compose and check the configuration, print the plan, build what is missing, report.

Kept light: ``--help`` and ``--cfg job`` import no torch.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mpo.config.compose import CONFIG_NAME, register, typed
from mpo.config.messages import explain
from mpo.errors import EXIT_CODE, UserError

STOPPED_CODE = 143


def experiment(cfg: DictConfig) -> None:
    """One run, or one member of a multirun."""
    from mpo.runner import run  # here, because it leads to torch

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        run(typed(cfg), folder=folder, choices=dict(hydra_config.runtime.choices))
    except Exception as error:
        told = explain(error)
        if told is None:
            raise
        # Hydra puts a line of its own before any exception that reaches it, but lets an exit pass.
        fail(told)


def fail(mistake: UserError) -> NoReturn:
    """Say what the user can mend, and exit."""
    print(f"mpo: error: {mistake}", file=sys.stderr)
    sys.exit(EXIT_CODE)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """A polite request to stop, wherever the run is: as for Ctrl-C."""
    from mpo.launch import Stopped

    raise Stopped


def main() -> None:
    """The command line; a user's mistake ends it with one line and status 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own reports and exit with 1
    signal.signal(signal.SIGTERM, _stop)
    try:
        hydra.main(version_base="1.3", config_path=register(), config_name=CONFIG_NAME)(experiment)()
    except BaseException as error:
        from mpo.launch import Stopped

        if isinstance(error, Stopped | KeyboardInterrupt):
            print("mpo: stopped; the same command goes on from where it was", file=sys.stderr)
            sys.exit(STOPPED_CODE)
        told = explain(error)
        if told is None:
            raise
        fail(told)


if __name__ == "__main__":
    main()
