"""Stage directories: what changes a fingerprint, when a stage counts as complete, who may build it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo.cache.artifacts import MANIFEST, Store, canonical_json, read_json, write_bytes, write_json
from mpo.cache.checksums import file_checksum
from mpo.cache.stage import File, Stage
from mpo.errors import DataError


def make(store: Store, stage: Stage, text: str = "result") -> Path:
    work = store.open_work(stage)
    (work / "result.txt").write_text(text)
    return store.commit(stage, {"usage": {}})


def test_fingerprint_covers_task_config_inputs_and_file_contents(tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("one")
    upstream = Stage("data", "data", {"seed": 0})
    base = Stage("train", "train", {"lr": 1.0}, inputs={"data": upstream, "extra": File(str(data))})
    variants = {
        "config": replace(base, config={"lr": 2.0}),
        "task": replace(base, task="evaluate"),
        "upstream": replace(base, inputs={"data": replace(upstream, config={"seed": 1})}),
        "role": replace(base, inputs={"other": upstream}),
    }
    before = Store(tmp_path / "cache").fingerprint(base)
    for name, variant in variants.items():
        assert Store(tmp_path / "cache").fingerprint(variant) != before, name
    data.write_text("two")
    assert Store(tmp_path / "cache").fingerprint(base) != before


def test_fingerprint_ignores_name_settings_and_where_a_file_lies(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "data.txt").write_text("same")
    store = Store(tmp_path / "cache")
    one = Stage("x", "data", inputs={"source": File(str(tmp_path / "a" / "data.txt"))})
    two = Stage("y", "data", settings={"every": 3}, inputs={"source": File(str(tmp_path / "b" / "data.txt"))})
    assert store.fingerprint(one) == store.fingerprint(two)


def test_complete_only_after_commit_and_while_its_files_are_whole(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), Stage("data", "data")
    assert not store.complete(stage)
    work = store.open_work(stage)
    (work / "result.txt").write_text("half")
    assert not store.complete(stage)
    path = store.commit(stage, {"usage": {"seconds": 1.0}})
    assert store.complete(stage) and not work.exists()
    size, checksum = store.manifest(stage)["files"]["result.txt"]
    assert size == 4 and checksum == file_checksum(path / "result.txt")
    (path / "result.txt").write_text("damaged")
    assert not store.complete(stage)


def flip(path: Path) -> None:
    """One bit; neither size nor time of change tell."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_flipped_bit_of_any_file_is_noticed(tmp_path: Path) -> None:
    stage = Stage("data", "data")
    path = make(Store(tmp_path), stage)
    assert Store(tmp_path).complete(stage)
    flip(path / "result.txt")
    assert Store(tmp_path).damage(stage) == "result.txt does not have its checksum"
    assert not Store(tmp_path).complete(stage)
    store = Store(tmp_path)
    assert make(store, stage) == path and store.complete(stage) and Store(tmp_path).complete(stage)
    flip(path / MANIFEST)
    assert (Store(tmp_path).damage(stage) or "").startswith("manifest.json ")
    (path / MANIFEST).write_text('{"files": {"result.txt": 6}}')  # as version 0.3.0 wrote it
    assert Store(tmp_path).damage(stage) == "manifest.json has no checksum: damaged, or of an older version"


def test_a_large_file_is_read_by_a_process_that_needs_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpo.cache.checksums.SMALL", 0)
    stage = Stage("train", "train")
    path = make(Store(tmp_path), stage)
    flip(path / "result.txt")
    assert Store(tmp_path).complete(stage)  # nobody has written to it, as far as its time of change tells
    store = Store(tmp_path)
    assert store.damage(stage, thorough=True) == "result.txt does not have its checksum"
    assert not store.complete(stage) and not Store(tmp_path).complete(stage)
    make(store, stage)
    assert store.complete(stage) and store.damage(stage, thorough=True) is None
    (path / "result.txt").write_text("nesult")
    assert not Store(tmp_path).complete(stage)


def test_what_another_run_has_repaired_is_not_repaired_again(tmp_path: Path) -> None:
    stage = Stage("train", "train")
    path = make(Store(tmp_path), stage)
    flip(path / "result.txt")
    one, other = Store(tmp_path), Store(tmp_path)
    assert one.damage(stage, thorough=True) and other.damage(stage, thorough=True)
    assert not one.repaired(stage)
    make(one, stage)
    assert not other.complete(stage)  # as it remembers
    with other.lock(stage):
        assert other.repaired(stage)
    assert other.complete(stage)


def test_logs_are_no_part_of_what_a_stage_wrote(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), Stage("train", "train", resumable=True)
    (store.open_work(stage) / "logs" / "0").mkdir(parents=True)
    (store.work_path(stage) / "logs" / "0" / "stdout.log").write_text("x")
    path = make(store, stage)
    (path / "logs" / "0" / "stdout.log").write_text("closed later")
    assert Store(tmp_path).complete(stage)


def test_nothing_is_kept_of_a_file_that_changed_meanwhile(tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("one")
    store, stage = Store(tmp_path / "cache"), Stage("data", "data", inputs={"source": File(str(data))}, resumable=True)
    work = store.open_work(stage)
    data.write_text("another")
    with pytest.raises(DataError, match=r"data\.txt: it changed while data read it; run again"):
        store.commit(stage, {})
    assert not work.exists() and not store.complete(stage)
    assert make(Store(tmp_path / "cache"), stage).name != work.stem


def test_only_a_resumable_stage_finds_its_half_built_directory(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for resumable in (False, True):
        stage = Stage("train", "train", {"resumable": resumable}, resumable=resumable)
        (store.open_work(stage) / "checkpoint").write_text("x")
        assert (store.open_work(stage) / "checkpoint").exists() is resumable


def test_a_damaged_directory_is_replaced(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), Stage("data", "data")
    path = make(store, stage, "first")
    (path / MANIFEST).unlink()
    make(store, stage, "second")
    assert (path / "result.txt").read_text() == "second"


def _hold(root: str, seconds: float, held: multiprocessing.synchronize.Event) -> None:
    with Store(Path(root)).lock(Stage("data", "data")):
        held.set()
        time.sleep(seconds)


@pytest.mark.parametrize("killed", [False, True])
def test_the_lock_waits_for_its_holder_and_dies_with_it(tmp_path: Path, killed: bool) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), 60.0 if killed else 0.5, held))
    process.start()
    assert held.wait(10)
    if killed:
        process.kill()
    started = time.monotonic()
    with Store(tmp_path).lock(Stage("data", "data")):
        waited = time.monotonic() - started
    process.join()
    assert waited < 10 and (killed or waited > 0.2)


def test_write_json_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "a.json", {"x": 2})
    assert read_json(tmp_path / "a.json") == {"x": 2}
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "a.json", 3)  # type: ignore[arg-type]
    assert read_json(tmp_path / "a.json") == {"x": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_canonical_json_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": 2}) == '{"a":2,"b":1}'
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_bytes_on_the_disk_are_counted_while_another_run_moves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    stage = Stage("train", "train", {})
    folder = store.work_path(stage)
    for name in ("checkpoints/step-1", "checkpoints/step-2", "policy"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").write_bytes(b"1234")
    assert store.written(stage) == 12
    listed = os.scandir

    def gone_meanwhile(path: str) -> Any:
        if str(path).endswith("checkpoints"):
            shutil.rmtree(folder / "checkpoints" / "step-1", ignore_errors=True)
        found = listed(path)
        if str(path).endswith("step-2"):
            shutil.rmtree(folder / "checkpoints" / "step-2")
        return found

    monkeypatch.setattr(os, "scandir", gone_meanwhile)
    assert store.written(stage) == 4


def test_a_cache_of_an_older_layout_is_said_once(tmp_path: Path) -> None:
    assert not Store(tmp_path / "new").adopt()
    old = tmp_path / "old" / "train" / "0123"
    old.mkdir(parents=True)
    (old / MANIFEST).write_text("{}")
    assert [Store(tmp_path / "old").adopt() for _ in range(2)] == [True, False]
    assert (old / MANIFEST).exists()
