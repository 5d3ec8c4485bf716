"""A run that was killed or told to stop goes on exactly where its checkpoint was."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.world import curve, mistake, spawn, weights

TIMING = {"memory_bytes", "tokens_per_second", "sets_per_second", "step_seconds", "layout_share"}


def job(out: Path, **more: Any) -> dict[str, Any]:
    config = {"zero_stage": 2, "global_batch": 5, "lr": 3e-3, "epochs": 2, "checkpoint_every": 3, "keep_checkpoints": 1}
    return {"out": str(out), "config": config | more.pop("config", {})} | more


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``whole`` ran through; ``killed`` died in step 8 of 10, ``stopped`` got SIGTERM in step 4; both were resumed."""
    folder = tmp_path_factory.mktemp("runs")
    assert spawn([job(folder / "killed", kill_at=8)], 1) == [-signal.SIGKILL]
    assert curve(folder / "killed", "step") == list(range(1, 9))
    assert [path.name for path in (folder / "killed/checkpoints").glob("step-*")] == ["step-000006"]
    assert spawn([job(folder / "stopped", stop_at=4)], 1) == [143]
    assert [path.name for path in (folder / "stopped/checkpoints").glob("step-*")] == ["step-000005"]
    assert spawn([job(folder / name) for name in ("whole", "killed", "stopped")]) == [0]
    return folder


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_resumed_weights_are_bitwise_those_of_a_whole_run(runs: Path, name: str) -> None:
    whole, resumed = weights(runs / "whole"), weights(runs / name)
    assert all(torch.equal(whole[part], resumed[part]) for part in whole)


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_metrics_hold_every_step_once(runs: Path, name: str) -> None:
    def rows(of: str) -> list[dict[str, Any]]:
        lines = (runs / of / "metrics.jsonl").read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key not in TIMING} for line in lines]

    assert rows(name) == rows("whole")
    assert [row["step"] for row in rows(name)] == list(range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "precision"), [(3, "fp32"), (3, "bf16"), (1, "bf16")])
def test_what_two_processes_share_out_is_resumed(tmp_path: Path, stage: int, precision: str) -> None:
    config = {"zero_stage": stage, "precision": precision}
    killed = spawn([job(tmp_path / "killed", kill_at=8, config=config)], 2)
    assert -signal.SIGKILL in killed and 0 not in killed
    assert spawn([job(tmp_path / name, config=config) for name in ("killed", "whole")], 2) == [0, 0]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[part], resumed[part]) for part in whole)


def test_checkpoint_of_other_settings_or_processes_is_refused(runs: Path) -> None:
    assert spawn([job(runs / "whole", config={"lr": 1e-3})]) == [2]
    assert "step-000010: checkpoint of other training settings or data; use the settings" in mistake(runs / "whole")
    assert spawn([job(runs / "whole")], 2) == [2, 2]
    assert "step-000010: checkpoint of 1 processes, but there are 2" in mistake(runs / "whole")


def test_every_process_stops_when_one_is_told_to(tmp_path: Path) -> None:
    assert spawn([job(tmp_path, stop_at=2, config={"zero_stage": 3})], 2) == [143, 143]
    assert curve(tmp_path, "step") == [1, 2, 3]


def test_first_loss_off_its_closed_form_stops(tmp_path: Path) -> None:
    assert spawn([job(tmp_path, shift_reference=0.5)]) == [2]
    assert "at policy = reference, and their log-probs differ by 0.5 nats a token" in mistake(tmp_path)
    assert not (tmp_path / "policy").exists()


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_loss_that_is_not_finite_names_its_prompts(tmp_path: Path, stage: int) -> None:
    assert spawn([job(tmp_path, break_set=7, config={"zero_stage": stage, "closed_form_check": False})]) == [2]
    assert "is not finite for set-7; lower train.lr" in mistake(tmp_path)
