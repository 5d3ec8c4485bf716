"""Why a process failed reaches the run, whatever the disk does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from mpo.errors import ConfigError, ProcessError, StageFailed, UserError
from mpo.pipeline.failure_reports import Report, ReportBox, send
from tests.conftest import fill


class OwnError(ConfigError):
    """One that the box does not know by name."""


@pytest.mark.parametrize("error", [UserError("a", "b", "c"), ConfigError("a"), ProcessError("a", "b"), OwnError("a")])
def test_a_mistake_comes_back_in_its_parts(error: UserError, tmp_path: Path) -> None:
    with ReportBox() as box:
        send(Report.of_mistake(error), box.address, tmp_path / "error.json")
        found = box.newest(tmp_path / "none.json")
        assert found is not None
        back = found.error(tmp_path)
    assert isinstance(back, UserError) and isinstance(error, type(back))
    assert (back.what, back.where, back.remedy) == (error.what, error.where, error.remedy)


def _send(address: str, file: str) -> None:
    for number in range(50):
        send(Report.of_bug(f"{number} " + "x" * 20_000), address, Path(file))


def test_processes_do_not_write_into_each_others_reports(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with ReportBox() as box:
        processes = [context.Process(target=_send, args=(box.address, str(tmp_path / "e"))) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        send(Report.of_mistake(UserError("the cause")), box.address, tmp_path / "e")
        found = box.newest(tmp_path / "e")
    assert found is not None and found.what == "the cause"  # which comes before bugs, perhaps its consequences


def test_without_room_for_the_file_others_still_see_that_one_has_failed(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(64)
    fill(folder)
    with ReportBox() as box:
        send(Report.of_bug("Traceback…\n"), box.address, folder / "error.json")
        found = box.newest(folder / "error.json")
    assert (folder / "error.json").read_bytes() == b""
    assert found is not None
    assert isinstance(error := found.error(Path("logs")), StageFailed) and str(error) == "Traceback…\nlog: logs"


def test_an_empty_file_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "error.json").touch()
    with ReportBox() as box:
        assert box.newest(tmp_path / "error.json") is None


def test_a_report_from_another_machine_is_read_from_the_file(tmp_path: Path) -> None:
    send(Report.of_mistake(UserError("elsewhere")), "/proc/none", tmp_path / "error.json")
    with ReportBox() as box:
        found = box.newest(tmp_path / "error.json")
    assert found is not None and found.what == "elsewhere"
