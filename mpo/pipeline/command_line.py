"""The command: compose and check the configuration, then one run or several, and an end with one line and a status.

Kept light: ``--help`` and ``--cfg job`` import no torch.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mpo.config.compose import CONFIG_NAME, register, typed
from mpo.config.flags import flags_anywhere
from mpo.config.messages import explain, explain_composition
from mpo.errors import FAILURE_CODE, StageFailed, Stopped, UserError
from mpo.failures.explain import explain_failure
from mpo.pipeline.multirun import AlreadyReported, compare_finished, quiet_reported
from mpo.pipeline.stopping import asked, exit_stopped, take_signals
from mpo.track.streams import abandon, open_closed, say, unwritable

_begun = threading.Event()
"""Whether composing is over: exceptions from then on are explained by their type alone."""


def experiment(cfg: DictConfig) -> float | None:
    """One run, or one member of a multirun; returns what a sweep looks at, ``sweep.metric``, where it is set."""
    _begun.set()
    gc.enable()
    from mpo.pipeline.runner import run  # here, because it leads to torch
    from mpo.report.objective import objective

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        config = typed(cfg)
        done = run(config, folder, dict(hydra_config.runtime.choices), list(hydra_config.overrides.task))
        metric = config.sweep.metric
        return None if done is None or metric is None else objective(done.evaluation, metric).value
    except Exception as error:
        if asked():
            raise Stopped from None
        if isinstance(error, BrokenPipeError) and cfg.dry_run:  # what reads the plan, such as head, has seen enough
            abandon(sys.stdout)
            return None
        mistake = explain(error)
        code = report(error, explain_failure(mistake or error, folder) or mistake)
        if code is None:
            raise
        if hydra_config.mode is RunMode.MULTIRUN:
            raise AlreadyReported(code) from None
        # Hydra puts a line of its own before any exception that reaches it, but lets an exit pass.
        sys.exit(code)


def report(error: Exception, explained: UserError | None) -> int | None:
    """Say why the command ends; returns the exit status, or None for a bug that needs Python's traceback."""
    if explained is not None:
        say(f"mpo: error: {explained}")
        return explained.exit_code
    if isinstance(error, StageFailed):  # its own process's traceback says it all
        say(str(error))
        return FAILURE_CODE
    return None


def main() -> None:
    """The command line; a user's mistake ends it with one line and status 2."""
    open_closed()
    take_signals()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own reports and exit with 1
    logging.raiseExceptions = False  # a log whose reader is gone is no reason for a traceback
    quiet_reported()
    gc.disable()  # nearly all that composing makes stays: looking for garbage in it takes a tenth of its time
    code = _ended(_compose_and_run)
    code = _ended(compare_finished) or code
    if not _begun.is_set():
        gc.freeze()  # and so does looking through it before the end
    sys.exit(code or flushed())


def _compose_and_run() -> None:
    flags_anywhere()
    hydra.main(version_base="1.3", config_path=register(), config_name=CONFIG_NAME)(experiment)()


def _ended(action: Callable[[], None]) -> int | str | None:
    """Exit status of ``action``, its failure reported; raises what is a bug, ends the process if it was asked to."""
    try:
        action()
        return 0
    except AlreadyReported as reported:
        return reported.code
    except SystemExit as left:  # Hydra's, after --help say
        return left.code
    except (Stopped, KeyboardInterrupt):
        exit_stopped()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _begun.is_set():
            abandon(sys.stdout)
            return 0
        # Was it the help that could not be written? Then neither can an empty line.
        if isinstance(error, OSError) and error.filename is None and not _begun.is_set() and (lost := flushed("\n")):
            return lost
        explained = explain(error) if _begun.is_set() else explain_composition(error)
        code = report(error, explained or explain_failure(error))
        if code is None and not asked():
            raise
        return code
    finally:
        if asked():
            exit_stopped()


def flushed(more: str = "") -> int:
    """Write out what standard output holds; the exit status if that fails, unless its reader has seen enough."""
    try:
        sys.stdout.write(more)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon(sys.stdout)
    except OSError as error:
        explained = unwritable(sys.stdout, error)
        say(f"mpo: error: {explained}")
        return explained.exit_code
    return 0
