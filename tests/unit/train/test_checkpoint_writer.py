"""Folders that several processes write: complete or absent, as things were when they were begun."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mpo.cache.checksums import file_checksum, read_sealed
from mpo.train.checkpoint_writer import Folder, Writer, remove_unfinished
from mpo.train.files import TensorsCopy, load_tensors, save_tensors


def state() -> dict[str, Any]:
    flat = torch.arange(10.0)
    return {"views": [flat[:4], flat[4:]], "moments": torch.ones(3), "step": 7, "again": flat[:4]}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys() and one["step"] == other["step"]
    tensors = ([*each["views"], each["moments"], each["again"]] for each in (one, other))
    assert all(torch.equal(first, second) for first, second in zip(*tensors, strict=True))


def test_a_copy_is_the_file_that_would_have_been_written_then(tmp_path: Path) -> None:
    value = state()
    at_once, copy = save_tensors(value, tmp_path / "a" / "at once.pt"), TensorsCopy(value)
    value["views"][0].zero_()
    value["moments"].mul_(2)
    assert copy.save(tmp_path / "b" / "later.pt") == at_once == file_checksum(tmp_path / "b" / "later.pt")
    assert_same(load_tensors(tmp_path / "b" / "later.pt"), state())


@pytest.mark.parametrize("copies", [True, False])
def test_a_folder_is_complete_once_all_processes_have_written(tmp_path: Path, copies: bool) -> None:
    path, metrics, done = tmp_path / "step-000003", tmp_path / "metrics.jsonl", list[bool]()
    metrics.write_bytes(b"one\ntwo\nthree\n")
    first, second = (Folder(path, {"step": 3}, copies) for _ in range(2))
    first.add(state(), "state/0.pt")
    first.add_beginning(metrics, 8)
    second.add(state(), "state/1.pt")
    writer = Writer()
    writer.start([first], 0, 2, lambda: done.append(path.exists()))
    time.sleep(0.1)
    writer.check()
    assert not path.exists() and not done
    second.write(1)
    writer.wait()
    assert done == [True] and not first.unfinished.exists()
    record = read_sealed(path / "state.json")
    assert record["step"] == 3
    assert record["files"] == {
        name: file_checksum(path / name) for name in ("state/0.pt", "state/1.pt", "metrics.jsonl")
    }
    assert {str(file.relative_to(path)) for file in path.rglob("*.*")} == {*record["files"], "state.json"}
    assert (path / "metrics.jsonl").read_bytes() == b"one\ntwo\n"


def test_what_goes_wrong_in_the_background_is_raised_by_the_next_look(tmp_path: Path) -> None:
    (tmp_path / "tmp-step-000003").write_text("a file that is in the way")
    folder, writer = Folder(tmp_path / "step-000003", {}), Writer()
    folder.add(state(), "0.pt")
    writer.start([folder], 0, 1, lambda: None)
    with pytest.raises(OSError, match="tmp-step-000003"):
        while True:
            writer.check()
    assert not folder.path.exists()


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    left = Folder(tmp_path / "step-000003", {})
    left.add(state(), "0.pt")
    left.write(0)
    (tmp_path / "step-000002").mkdir()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
