from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mpo.errors import ConfigError, ProcessError
from mpo.experiments.__main__ import _device_groups, main
from mpo.experiments.options import parse


def test_cards_are_shared_out_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert _device_groups(1) == ["0", "1", "2"] and _device_groups(2) == ["0,1"]
    with pytest.raises(ConfigError, match="8 cards a run, but 3 here"):
        _device_groups(8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert _device_groups(8) == []


def test_what_makes_no_sense_at_a_scale_is_refused_or_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = f"out={tmp_path}"
    assert main(["testbed_drift", "scale=paper", "show=true", out]) == 2
    assert "testbed_drift: not at scale paper" in capsys.readouterr().err
    assert main(["testbed_drift", "mpo_table4", "scale=paper", "show=true", out]) == 0
    printed = capsys.readouterr().out
    assert "not at this scale: testbed_drift" in printed and "0 of them finished" in printed
    assert not (tmp_path / "testbed_drift.md").exists()
    with pytest.raises(ConfigError, match="run it first"):
        parse(["tuning", "mpo_table1"])


def test_a_killed_process_ends_the_command_but_not_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*given: object) -> Iterator[object]:
        raise ProcessError("a process that runs cells was killed")
        yield

    monkeypatch.setattr("mpo.experiments.execute.run_here", killed)
    assert main(["mpo_table4", "jobs=1", f"out={tmp_path}"]) == 1
    assert "runs are missing" in capsys.readouterr().out and (tmp_path / "mpo_table4.md").is_file()
