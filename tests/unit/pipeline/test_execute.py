"""A stage that was computed is kept, whatever happens to what shows it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mpo.cache.artifacts import Store
from mpo.cache.stage import Placement, Stage
from mpo.config.schema import LauncherConfig
from mpo.errors import Stopped
from mpo.pipeline import execute, stopping
from mpo.pipeline.execute import Executor
from mpo.pipeline.launch import run_inline
from mpo.pipeline.stage_process import write_usage
from mpo.stages.context import StageContext
from mpo.stages.nodes import data, score
from mpo.track.console import Console
from mpo.track.progress import ProgressReader

WORLD = {"_target_": "mpo.testbed.source.World", "prompts": 3, "heldout_prompts": 2}
PROMPTS = data.TASK.stage("data", data.Config(WORLD), data.Settings(), data.Inputs(), Placement.here)


class BrokenTerminal(Console):
    """Its bars cannot be drawn."""

    @contextmanager
    def stage(self, name: str, progress: ProgressReader) -> Iterator[Any]:  # type: ignore[override]
        class Live:
            def refresh(self) -> None:
                raise OSError("input/output error")

        yield Live()


def test_a_display_that_fails_costs_no_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(execute, "REFRESH_S", 0.001)

    def slowly(context: StageContext) -> None:
        time.sleep(0.1)
        run_inline(context)

    monkeypatch.setattr(execute, "run_inline", slowly)
    store = Store(tmp_path)
    executor = Executor(store, LauncherConfig(), BrokenTerminal(), lambda stage, record: None)
    path = executor.build(PROMPTS)
    assert store.complete(PROMPTS) and (path / "heldout.parquet").is_file()
    assert "warning: data was not shown or logged to its end: OSError" in capsys.readouterr().err
    assert [row.cached for row in executor.rows] == [False]


def test_a_request_to_stop_that_was_lost_is_heard_before_the_next_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_asked", threading.Event())
    stopping.building()
    executor = Executor(Store(tmp_path), LauncherConfig(), Console(), lambda stage, record: None)
    with suppress(Stopped):  # as Python does in the callback of a weak reference
        stopping.stop(signal.SIGTERM, None)
    with pytest.raises(Stopped):
        executor.build(PROMPTS)
    assert not executor.rows


def test_a_run_that_waits_for_another_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, explained = Store(tmp_path), ""
    executor = Executor(store, LauncherConfig(), Console(), lambda stage, record: None)
    with ThreadPoolExecutor(1) as pool:
        with store.lock(PROMPTS):
            waiting = pool.submit(executor.build, PROMPTS)
            while "data: another run is building it; waiting" not in explained and not waiting.done():
                time.sleep(0.01)
                explained += capsys.readouterr().err
            assert not waiting.done()
        assert waiting.result(timeout=60) == store.path(PROMPTS)
    assert store.complete(PROMPTS)


def test_what_a_stage_reads_is_built_again_if_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mpo.cache.checksums.SMALL", 0)  # every file counts as large: it is read when a stage needs it
    count = Stage("count", "copy", inputs=score.Inputs(PROMPTS), placement=Placement.here)

    def copy(context: StageContext) -> None:
        if context.task != "copy":
            return run_inline(context)
        (context.output / "copy").write_bytes((context.inputs.sets / "train.parquet").read_bytes())
        return write_usage(context.output, time.monotonic(), None)

    monkeypatch.setattr(execute, "run_inline", copy)
    made = Executor(Store(tmp_path), LauncherConfig(), Console(), lambda stage, record: None).build(PROMPTS)
    sound = (made / "train.parquet").read_bytes()
    before = (made / "train.parquet").stat()
    (made / "train.parquet").write_bytes(sound[:-9] + b"x" + sound[-8:])
    os.utime(made / "train.parquet", ns=(before.st_atime_ns, before.st_mtime_ns))
    executor = Executor(Store(tmp_path), LauncherConfig(), Console(), lambda stage, record: None)
    assert executor.build(PROMPTS) == made and executor.rows[0].cached
    assert (executor.build(count) / "copy").read_bytes() == sound == (made / "train.parquet").read_bytes()
    expected = "mpo: warning: data is damaged (train.parquet does not have its checksum); it is built again"
    assert expected in capsys.readouterr().err
    assert [(row.name, row.cached) for row in executor.rows] == [("data", False), ("count", False)]


def test_a_stage_s_warnings_reach_the_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warned(context: StageContext) -> None:
        context.warn("a checkpoint\nis damaged")
        context.warn("another")
        run_inline(context)

    monkeypatch.setattr(execute, "run_inline", warned)
    Executor(Store(tmp_path), LauncherConfig(), Console(), lambda stage, record: None).build(PROMPTS)
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert lines == ["mpo: warning: data: a checkpoint is damaged", "mpo: warning: data: another"]
