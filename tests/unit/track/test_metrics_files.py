from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from mpo.errors import DataError
from mpo.track.metrics import MetricsFollower, read_metrics


def lines(steps: Iterable[int], loss: float = 0.5) -> str:
    return "".join(json.dumps({"step": step, "loss": loss + step}) + "\n" for step in steps)


def steps_of(records: list[dict[str, float]]) -> list[float]:
    return [record["step"] for record in records]


def test_read_leaves_out_the_line_being_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines([1, 2]) + '{"step": 3, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 1.5}, {"step": 2, "loss": 2.5}]


@pytest.mark.parametrize("broken", ['{"step": 2, "loss"', "[2]", '{"loss": 1.0}'])
def test_a_broken_line_is_named(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines([1]) + broken + "\n" + lines([3]))
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        read_metrics(path)
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        MetricsFollower(path).poll()


def test_read_of_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the training stage first"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_follower_gives_a_line_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = MetricsFollower(path)
    assert follower.poll() == []
    whole = lines([1, 2])
    path.write_text(whole[:-5])
    assert steps_of(follower.poll()) == [1]
    path.write_text(whole)
    assert steps_of(follower.poll()) == [2]
    assert follower.poll() == []


@pytest.mark.parametrize("regrown", [6, 12, 30])
def test_follower_never_repeats_a_step_after_a_resume(tmp_path: Path, regrown: int) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = MetricsFollower(path)
    path.write_text(lines(range(1, 11)))
    assert steps_of(follower.poll()) == list(range(1, 11))
    # Cut back to step 5 and written anew with other numbers, shorter or longer than what was read before.
    path.write_text(lines(range(1, 6)) + lines(range(6, regrown + 1), loss=0.123456))
    assert steps_of(follower.poll()) == list(range(11, regrown + 1))
    with path.open("a") as stream:
        stream.write(lines([regrown + 1]))
    assert steps_of(follower.poll()) == ([regrown + 1] if regrown + 1 > 10 else [])
