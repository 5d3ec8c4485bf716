from __future__ import annotations

import time
from pathlib import Path

import pytest

from mpo.track.progress import INTERVAL_S, ProgressReader, ProgressWriter


def test_reader_sees_what_was_written_and_none_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "progress.json"
    reader = ProgressReader(path)
    assert reader.read() is None
    ProgressWriter(path).update(3, 10, "sets", loss=0.5, phase="warm-up")
    progress = reader.read()
    assert progress is not None
    assert (progress.done, progress.total, progress.unit, progress.first) == (3, 10, "sets", 3)
    assert progress.fields == {"loss": 0.5, "phase": "warm-up"}


def test_quick_updates_are_held_back_but_the_end_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = tmp_path / "progress.json"
    seen = []
    with ProgressWriter(path) as writer:
        for done in range(1, 101):
            writer.update(done, 100, "steps")
            progress = ProgressReader(path).read()
            assert progress is not None
            seen.append(progress.done)
            now[0] += 1 / 32
    assert INTERVAL_S == 0.2
    assert len(set(seen)) == 16  # 7/32 s is the first multiple above the interval: 1, 8, … 99, and the last
    assert seen[-1] == 100
    assert [p.name for p in tmp_path.iterdir()] == ["progress.json"]


def test_leaving_the_block_writes_what_was_held_back(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    with ProgressWriter(path) as writer:
        writer.update(1, 100, "steps")
        writer.update(7, 100, "steps")
    progress = ProgressReader(path).read()
    assert progress is not None
    assert (progress.first, progress.done) == (1, 7)


def test_other_work_begins_at_its_own_count_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = tmp_path / "progress.json"
    writer = ProgressWriter(path)
    seen = []
    for done, total in ((400, 500), (500, 500), (8, 200), (200, 200), (3, 200)):  # resumed, done, the next split, again
        writer.update(done, total, "prompts")
        writer.close()
        progress = ProgressReader(path).read()
        assert progress is not None
        seen.append((progress.first, progress.seconds))
        now[0] += 10.0
    assert seen == [(400, 0.0), (400, 10.0), (8, 0.0), (8, 10.0), (3, 0.0)]


def test_updates_without_a_known_total_are_held_back_too(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    writer = ProgressWriter(path)
    for done in range(1, 50):
        writer.update(done, 0, "sets")
    progress = ProgressReader(path).read()
    assert progress is not None and progress.done < 49
    writer.close()
    progress = ProgressReader(path).read()
    assert progress is not None and progress.done == 49
