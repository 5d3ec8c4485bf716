"""Texts and paths that no file, terminal or file system can hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args, get_type_hints

import pytest

from mpo.config.limits import LISTS, RUN
from mpo.config.schema import DataConfig, ModelConfig, RunConfig, ScratchConfig
from mpo.config.texts import PATHS, check_texts
from mpo.config.training import LoraConfig, TrainConfig
from mpo.errors import LONGEST, ConfigError

TESTBED = DataConfig(source="testbed")


def config(**changed: Any) -> RunConfig:
    return RunConfig(**{"cache_dir": "cache", "data": TESTBED, **changed})


BAD = {
    "a tab": (config(name="a\tb"), "name", "U+0009"),
    "an escape": (config(name="\x1b[31m"), "name", "U+001B"),
    "a lone surrogate": (config(score={"options": {"x": "\udc80"}}), "score.options.x", "U+DC80"),
    "a surrogate in a key": (config(score={"options": {"\udc80": 1}}), "score.options.(a key)", "U+DC80"),
    "a long name": (config(name="x" * 256), "name", "256 bytes"),
    "a long name in bytes": (config(name="é" * 128), "name", "256 bytes"),
    "nan": (config(partition={"trim": float("nan")}), "partition.trim", "not a finite number"),
    "inf in a list": (config(score={"options": {"x": [1.0, float("inf")]}}), "score.options.x[1]", "not a finite"),
    "bytes": (config(score={"options": {"x": b"1"}}), "score.options.x", "type bytes"),
    "a key that is a number": (config(loss={"x": {1: 2}}), "loss.x", "is not text"),
    "no such user": (config(cache_dir="~no-such-user-here/x"), "cache_dir", "does not know"),
    "a long part": (config(cache_dir="a/" + "x" * 256), "cache_dir", "part of the path has 256"),
    "a long path": (config(data=DataConfig(source="/".join(["y"] * 1900 + ["a.jsonl"]))), "data.source", "bytes"),
    "a NUL": (config(model=ModelConfig(path="a\0b")), "model.path", "U+0000"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_written_names_its_key(name: str) -> None:
    found, where, what = BAD[name]
    with pytest.raises(ConfigError) as caught:
        check_texts(found)
    assert caught.value.where == where and what in caught.value.what
    assert str(caught.value).isprintable()


def test_many_levels_are_refused_and_few_are_not() -> None:
    options: dict[str, Any] = {}
    for _ in range(10):
        options = {"a": [options]}
    with pytest.raises(ConfigError, match="levels"):
        check_texts(config(score=options))
    lines = {"options": {"a": [{"b": "two\nlines"}]}}
    check_texts(config(score=lines, score_also={"other": lines}, name="日本語 🙂", cache_dir="~/x"))


def _numbers(cls: type, prefix: str = "") -> Iterator[str]:
    for name, wanted in get_type_hints(cls).items():
        parts = get_args(wanted) or (wanted,)
        for part in parts:
            if dataclasses.is_dataclass(part):
                yield from _numbers(part, f"{prefix}{name}.")
            elif part in (int, float):
                yield f"{prefix}{name}"


def test_every_number_of_the_schema_has_two_ends() -> None:
    assert {*_numbers(RunConfig)} == {*RUN}
    assert all(abs(end) < 1e14 for limit in RUN.values() for end in (limit.low, limit.high))
    lists = {name for name in RUN if get_args(_type(name)) and list in (getattr(_type(name), "__origin__", None),)}
    assert lists == {*LISTS}


def _type(key: str) -> Any:
    owners = {"train": TrainConfig, "scratch": ScratchConfig, "sft": TrainConfig, "lora": LoraConfig}
    cls: Any = RunConfig
    *parents, last = key.split(".")
    for name in parents:
        cls = owners.get(name) or get_type_hints(cls)[name]
    return get_type_hints(cls)[last]


def test_paths_are_texts_of_the_schema() -> None:
    assert all(not isinstance(_type(key), type(Enum)) for key in PATHS)
    assert all(str in (get_args(_type(key)) or (_type(key),)) for key in PATHS if key != "data.source")
    assert _type("data.source") is Any  # it may be a class too


def test_a_message_is_short_and_printable_whatever_it_quotes() -> None:
    error = ConfigError("x" * 9000, "\udc80" + "y" * 5000, "choose\none\x1b")
    assert len(str(error)) <= LONGEST + 10 and str(error).isprintable()
    assert str(error).endswith("choose one\\x1b") and "…" in str(error)
    assert str(ConfigError("what", "where", "remedy")) == "where: what; remedy"
