"""A source of the user's own: what it gives is checked as rows of a file are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mpo.config.schema import DataConfig
from mpo.config.source import check_source, source_of
from mpo.data.problems import Problem
from mpo.data.sources import OnProblem, Source
from mpo.data.sources.checked import checked_sets
from mpo.errors import ConfigError, DataError
from mpo.types import Message, Response, ResponseSet

GOOD = ResponseSet("a", (Message("user", "q"),), (Response("x", 1.0), Response("y", 2.0)))


@dataclass(frozen=True)
class Given(Source):
    """Gives what the test says."""

    sets: Any = ()

    def read_sets(self, rounds: int, on_problem: OnProblem) -> Iterator[ResponseSet]:
        yield from self.sets


@dataclass(frozen=True)
class PromptsAlone(Given):
    """Without responses."""

    gives_responses: ClassVar[bool] = False


def read(source: Source) -> tuple[list[ResponseSet], list[Problem]]:
    problems: list[Problem] = []
    return list(checked_sets(source, source.read_sets(1, problems.append), problems.append)), problems


BAD = {
    "missing_field": replace(GOOD, id=""),
    "duplicate_id": GOOD,
    "empty_prompt": replace(GOOD, id="b", prompt=()),
    "bad_message": replace(GOOD, id="b", prompt=(Message("robot", "q"),)),
    "bad_role_order": replace(GOOD, id="b", prompt=(Message("user", "q"), Message("assistant", "a"))),
    "response_not_text": replace(GOOD, id="b", responses=(Response(3),)),  # type: ignore[arg-type]
    "nan_score": replace(GOOD, id="b", responses=(Response("x", math.nan),)),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_set_that_cannot_be_used_is_counted_and_the_others_are_kept(reason: str) -> None:
    kept, problems = read(Given((GOOD, BAD[reason], replace(GOOD, id="last"))))
    assert [one.id for one in kept] == ["a", "last"]
    assert [(one.where, one.reason_code, one.severity) for one in problems] == [("Given: set 2", reason, "error")]


def test_warnings_are_those_of_files() -> None:
    half = replace(GOOD, responses=(Response("x", 1.0), Response("y")))
    (kept,), problems = read(Given((half,)))
    assert [each.text for each in kept.responses] == ["x"]
    assert [one.reason_code for one in problems] == ["unscored_response", "one_response"]
    assert read(PromptsAlone((replace(GOOD, responses=()),)))[1] == []


def test_what_is_no_set_and_what_raises_is_one_line() -> None:
    with pytest.raises(DataError, match="Given gave a dict; yield mpo.types.ResponseSet"):
        read(Given(({"prompt": "q"},)))

    class Broken(Given):
        def read_sets(self, rounds: int, on_problem: OnProblem) -> Iterator[ResponseSet]:
            raise KeyError("column")
            yield

    with pytest.raises(ConfigError, match=r"data.source: Broken raised KeyError: 'column' at test_own_source.py:\d+"):
        read(Broken())


def test_a_source_is_a_file_a_hub_name_or_a_class(tmp_path: Path) -> None:
    (tmp_path / "sets.jsonl").write_text("{}\n")
    assert source_of(DataConfig(source=str(tmp_path / "sets.jsonl")), ()).name == "sets.jsonl"
    assert source_of(DataConfig(source="owner/name"), ()).name == "owner/name"
    node = {"_target_": f"{__name__}.Given"}
    assert source_of(DataConfig(source=node), [__name__.partition(".")[0]]).name == "Given"
    with pytest.raises(ConfigError, match=r"data.source._target_: .* is not part of mpo"):
        source_of(DataConfig(source=node), ())
    for other in (None, 3, ["a"]):
        with pytest.raises(ConfigError, match="data.source: .* is no source; give a file, a hub name"):
            source_of(DataConfig(source=other), ())


def test_what_a_source_finds_wrong_itself_is_told_before_anything_is_read() -> None:
    class Careful(Given):
        def check(self) -> None:
            raise ValueError("no connection")

    with pytest.raises(ConfigError, match="Careful raised ValueError: no connection"):
        check_source(Careful())
