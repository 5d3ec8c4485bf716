"""Flags of Hydra's command line among the overrides, and one line for those that do not fit. No torch."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any, NoReturn

from mpo.errors import ConfigError

_HELP = "see python -m mpo.run --help"


def flags_anywhere() -> None:
    """Let flags stand after overrides too, as in ``loss=dpo -m seed=0,1``, which Hydra takes from version 1.4 on."""
    command = importlib.import_module("hydra.main")  # as an attribute of hydra it is the function of that name
    hydras_own = command.get_args_parser

    def parser() -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = hydras_own()

        def parse(args: Sequence[str] | None = None, namespace: Any = None) -> Any:
            return _checked(made.parse_intermixed_args(args, namespace))

        made.parse_args = parse  # type: ignore[method-assign,assignment]
        made.error = _refuse  # type: ignore[method-assign]
        return made

    command.get_args_parser = parser  # type: ignore[attr-defined]


def _checked(flags: argparse.Namespace) -> argparse.Namespace:
    """The same flags; raises ConfigError for what Hydra would meet with an exception."""
    if flags.experimental_rerun is not None:
        raise ConfigError("it would load a pickle, which can run code", "--experimental-rerun",
                          "repeat the overrides that the run's .hydra/overrides.yaml lists")  # fmt: skip
    asked = {
        "--cfg": flags.cfg,
        "--info": flags.info,
        "--multirun": flags.multirun,
        "--run": flags.run,
        "--shell-completion": flags.shell_completion,
    }
    given = [name for name, value in asked.items() if value]
    if len(given) > 1 and not (flags.help or flags.hydra_help):
        raise ConfigError("only one of them can be done at a time", " and ".join(given), "leave the others out")
    if flags.resolve and not (flags.cfg or flags.help):
        raise ConfigError("it belongs to another flag", "--resolve", "add --cfg job")
    return flags


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message, "command line", _HELP)
