"""Flags of Hydra's command line among the overrides, and one line for those that do not fit. No torch."""

from __future__ import annotations

import argparse
import importlib
import re
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
    """The same flags, lists of scorers taken apart; raises ConfigError for what Hydra would meet with an exception."""
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
    flags.overrides = [each for override in flags.overrides for each in _scorers_apart(override)]
    return flags


def _scorers_apart(override: str) -> list[str]:
    """``score=[a,b]`` as Hydra takes it: ``score=a`` and ``+score@score_also.b=b``; any other override as it is."""
    found = re.fullmatch(r"score=\[(.*)\]", override.strip())
    if found is None:
        return [override]
    names = [name.strip() for name in found.group(1).split(",")]
    wrong = next((name for name in names if not re.fullmatch(r"\w+", name)), None)
    if wrong is not None:
        raise ConfigError(f"{wrong!r} is no option", "score", "list options of conf/score: score=[skywork_v2,armorm]")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is listed twice", "score", "list each one once")
    return [f"score={names[0]}", *(f"+score@score_also.{name}={name}" for name in names[1:])]


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message, "command line", _HELP)
