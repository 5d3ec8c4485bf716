"""PyTorch's own profiler around steps that multiply matrices."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from mpo.track.profile import TRACE_FILE, read_profile
from mpo.track.step_profiler import StepProfiler, span
from mpo.track.trace_parts import OPTIMIZER, PRODUCTS


def work(folder: Path, steps: int, expected: int | None = None, first: int = 0) -> list[str]:
    """Do ``steps`` of the ``expected`` ones; returns warnings."""
    lines: list[str] = []
    square = torch.randn(600, 600)
    with StepProfiler(folder, steps if expected is None else expected, torch.device("cpu"), lines.append) as profiler:
        for number in range(first + 1, first + steps + 1):
            with profiler.step(number):
                with span("forward"):
                    square @ square
                with span("update"):
                    square.abs().sum()
    return lines


@pytest.mark.parametrize(
    ("steps", "recorded"), [(1, [1]), (2, [2]), (3, [3]), (4, [3, 4]), (5, [3, 4, 5]), (7, [3, 4, 5])]
)
def test_the_third_to_the_fifth_step_of_a_process_are_recorded(tmp_path: Path, steps: int, recorded: list[int]) -> None:
    assert work(tmp_path, steps) == []
    found = read_profile(tmp_path / TRACE_FILE)
    assert found.steps == recorded and found.device == "cpu"
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares[PRODUCTS] > found.shares[OPTIMIZER] > 0
    assert [path.name for path in tmp_path.iterdir()] == [TRACE_FILE]


def test_a_resumed_training_counts_on_and_one_that_ends_early_keeps_what_it_has(tmp_path: Path) -> None:
    work(tmp_path, 4, expected=9, first=20)
    assert read_profile(tmp_path / TRACE_FILE).steps == [23, 24]


def test_a_training_that_ends_before_leaves_nothing(tmp_path: Path) -> None:
    work(tmp_path, 2, expected=9)
    assert list(tmp_path.iterdir()) == []


def test_without_a_profile_there_are_no_ranges_and_no_file(tmp_path: Path) -> None:
    assert work(tmp_path, 3, expected=0) == []
    assert list(tmp_path.iterdir()) == []
    assert span("forward") is span("backward")  # nothing is made


def test_a_trace_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / TRACE_FILE).mkdir()
    (line,) = work(tmp_path, 3)
    assert line.startswith("train.profile: the trace was not written")


def test_the_ranges_are_in_the_trace(tmp_path: Path) -> None:
    work(tmp_path, 3)
    events = json.loads(gzip.decompress((tmp_path / TRACE_FILE).read_bytes()))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert {"mpo: step 3", "mpo: forward", "mpo: update"} <= set(names)
