"""Flags between overrides, and those that do not fit."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from mpo.config.flags import flags_anywhere
from mpo.errors import ConfigError


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    command = importlib.import_module("hydra.main")
    monkeypatch.setattr(command, "get_args_parser", command.get_args_parser)  # put back at the end
    flags_anywhere()
    yield lambda *arguments: command.get_args_parser().parse_args(list(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "loss=dpo", "seed=0,1"),
        ("loss=dpo", "-m", "seed=0,1"),
        ("loss=dpo", "seed=0,1", "--multirun"),
    ],
)
def test_a_flag_may_stand_anywhere(parse: Any, arguments: tuple[str, ...]) -> None:
    flags = parse(*arguments)
    assert flags.multirun and flags.overrides == ["loss=dpo", "seed=0,1"]


def test_flags_with_a_value_keep_it(parse: Any) -> None:
    flags = parse("loss=dpo", "--cfg", "job", "seed=1", "--resolve")
    assert flags.cfg == "job" and flags.overrides == ["loss=dpo", "seed=1"]


def test_no_override_at_all(parse: Any) -> None:
    assert parse().overrides == [] and parse("-m").overrides == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("loss=dpo", "--nosuch"), ("--nosuch", "--help")),
        (("--cfg", "nosuch"), ("--cfg", "job")),
        (("-m", "--cfg", "job"), ("--cfg and --multirun", "leave the others out")),
        (("--resolve",), ("--resolve", "--cfg job")),
        (("--experimental-rerun", "config.pickle"), ("pickle", "overrides.yaml")),
    ],
)
def test_flags_that_do_not_fit_are_one_line(parse: Any, arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(*arguments)
    for part in parts:
        assert part in str(refused.value)
