"""A run that was killed or told to stop goes on exactly where its checkpoint was."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mpo.cache.checksums import file_checksum, read_sealed, sealed
from tests.distributed.world import curve, mistake, spawn, weights

TIMING = {
    *("memory_bytes", "memory_reserved_bytes"),
    *("tokens_per_second", "sets_per_second", "step_seconds", "layout_share"),
}


def job(out: Path, **more: Any) -> dict[str, Any]:
    config = {"zero_stage": 2, "global_batch": 5, "lr": 3e-3, "epochs": 2, "checkpoint_every": 3}
    return {"out": str(out), "config": config | more.pop("config", {})} | more


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def flip(path: Path) -> None:
    """One bit, in the middle; neither size nor time of change tell."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.made),)


def plant(checkpoint: Path) -> None:
    """A pickle that runs code in place of every file of torch's."""
    for path in checkpoint.rglob("*.pt"):
        path.write_bytes(pickle.dumps(Evil(checkpoint.parent.parent / "ran")))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights flipped": lambda at: flip(next(at.rglob("*model_states.pt"))),
    "optimizer cut": lambda at: cut(next(at.rglob("*optim_states.pt"))),
    "random missing": lambda at: (at / "random-0.pt").unlink(),
    "record empty": lambda at: (at / "state.json").write_text(""),
    "record flipped": lambda at: flip(at / "state.json"),
    "metrics flipped": lambda at: flip(at / "metrics.jsonl"),
    "pickles planted": plant,
    "both flipped": lambda at: None,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``whole`` ran through; ``killed`` died in step 8 of 10, ``stopped`` got SIGTERM in step 4; both were resumed.

    ``interrupted`` is as ``killed`` was before that. The others are copies of it whose checkpoints were damaged before
    they were resumed.
    """
    folder = tmp_path_factory.mktemp("runs")
    assert spawn([job(folder / "killed", kill_at=8, once="step-000006")], 1) == [-signal.SIGKILL]
    assert curve(folder / "killed", "step") == list(range(1, 9))
    assert checkpoints(folder / "killed") == ["step-000003", "step-000006"]
    assert spawn([job(folder / "stopped", stop_at=4)], 1) == [143]
    assert checkpoints(folder / "stopped") == ["step-000003", "step-000005"]
    shutil.copytree(folder / "killed", folder / "interrupted")
    for name, damage in DAMAGES.items():
        shutil.copytree(folder / "killed", folder / name)
        damage(folder / name / "checkpoints" / "step-000006")
    for step in ("step-000003", "step-000006"):
        flip(next((folder / "both flipped/checkpoints" / step).rglob("*model_states.pt")))
    assert spawn([job(folder / name) for name in ("whole", "killed", "stopped", *DAMAGES)]) == [0]
    return folder


@pytest.mark.parametrize("name", ["killed", "stopped", *DAMAGES])
def test_resumed_weights_are_bitwise_those_of_a_whole_run(runs: Path, name: str) -> None:
    whole, resumed = weights(runs / "whole"), weights(runs / name)
    assert all(torch.equal(whole[part], resumed[part]) for part in whole)


@pytest.mark.parametrize("name", ["killed", "stopped", *DAMAGES])
def test_metrics_hold_every_step_once(runs: Path, name: str) -> None:
    def rows(of: str) -> list[dict[str, Any]]:
        lines = (runs / of / "metrics.jsonl").read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key not in TIMING} for line in lines]

    assert rows(name) == rows("whole")
    assert [row["step"] for row in rows(name)] == list(range(1, 11))


def test_damage_is_reported_and_the_checkpoint_before_it_taken(runs: Path) -> None:
    assert not (runs / "killed" / "warnings.txt").exists()
    for name in DAMAGES:
        lines = (runs / name / "warnings.txt").read_text().splitlines()
        assert lines[0].startswith("checkpoint step-000006 is damaged ("), name
        if name == "both flipped":
            assert "model_states.pt does not have its checksum); training goes on from step-000003" in lines[0]
            assert lines[1].startswith("checkpoint step-000003 is damaged (")
            assert lines[1].endswith("training starts again")
        else:
            assert len(lines) == 1 and lines[0].endswith("training goes on from step-000003")
        assert not (runs / name / "ran").exists()
        assert checkpoints(runs / name) == ["policy-000010", "step-000009", "step-000010"]


@pytest.mark.parametrize(
    "run, pattern",
    [
        ("interrupted", "*model_states.pt"),
        ("interrupted", "*optim_states.pt"),
        ("interrupted", "random-0.pt"),
        ("whole", "weights-0.pt"),
    ],
)
def test_no_checkpoint_runs_code_though_its_checksums_are_right(
    runs: Path, tmp_path: Path, run: str, pattern: str
) -> None:
    shutil.copytree(runs / run, tmp_path / "run")
    for file in (tmp_path / "run/checkpoints").rglob(pattern):
        file.write_bytes(pickle.dumps({"module": Evil(tmp_path / "ran")}))
        newest = tmp_path / "run/checkpoints" / file.relative_to(tmp_path / "run/checkpoints").parts[0]
        record = read_sealed(newest / "state.json")
        record["files"][str(file.relative_to(newest))] = file_checksum(file)
        (newest / "state.json").write_text(json.dumps(sealed(record)))
    assert spawn([job(tmp_path / "run")]) == [2]
    line = mistake(tmp_path / "run")
    assert line.partition(": ")[0].endswith("step-000006" if run == "interrupted" else "policy-000010")
    assert "a checkpoint's file holds more than tensors and plain values" in line
    assert not (tmp_path / "ran").exists()


def test_processes_agree_on_damage_that_one_of_them_sees(tmp_path: Path) -> None:
    config = {"zero_stage": 3, "max_steps": 6}
    assert spawn([job(tmp_path / "run", config=config)], 2) == [0, 0]
    expected = weights(tmp_path / "run")
    flip(tmp_path / "run/checkpoints/policy-000006/weights-1.pt")
    (second,) = (tmp_path / "run/checkpoints/step-000003").rglob("*_rank_1_*optim_states.pt")
    flip(second)
    assert spawn([job(tmp_path / "run", config=config)], 2) == [0, 0]
    lines = (tmp_path / "run" / "warnings.txt").read_text().splitlines()
    assert "it needs policy-000006 (weights-1.pt does not have its checksum" in lines[0]
    assert "rank_1_mp_rank_00_optim_states.pt does not have its checksum); training starts again" in lines[1]
    resumed = weights(tmp_path / "run")
    assert all(torch.equal(expected[part], resumed[part]) for part in expected)


def test_a_finished_training_is_exported_without_training_again(tmp_path: Path) -> None:
    run, config = tmp_path / "run", {"max_steps": 2}
    run.mkdir()
    (run / "policy").write_text("a file that is in the way")
    assert spawn([job(run, config=config)]) == [1]
    metrics = (run / "metrics.jsonl").read_bytes()
    assert metrics.count(b"\n") == 2
    (run / "policy").unlink()
    assert spawn([job(run, config=config), job(tmp_path / "whole", config=config)]) == [0]
    assert (run / "metrics.jsonl").read_bytes() == metrics
    expected, found = weights(tmp_path / "whole"), weights(run)
    assert all(torch.equal(expected[part], found[part]) for part in expected)


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


def test_a_request_after_the_last_step_is_not_lost(tmp_path: Path) -> None:
    assert spawn([job(tmp_path, stop_at=10)]) == [143]
    assert curve(tmp_path, "step") == [*range(1, 11)]
    assert spawn([job(tmp_path)]) == [0]  # nothing is left to be done but what follows
    assert curve(tmp_path, "step") == [*range(1, 11)]


def test_first_loss_off_its_closed_form_stops(tmp_path: Path) -> None:
    assert spawn([job(tmp_path, shift_reference=0.5)]) == [2]
    assert "at policy = reference, and their log-probs differ by 0.5 nats per token" in mistake(tmp_path)
    assert not (tmp_path / "policy").exists()


def test_first_loss_off_by_what_packings_differ_by_is_rounding(tmp_path: Path) -> None:
    """In bfloat16, that is, and a wrong reference stops the run all the same."""
    config = {"precision": "bf16", "max_steps": 1}
    assert spawn([job(tmp_path / "noisy", noise=0.02, config=config | {"zero_stage": 3})], 2) == [0, 0]
    assert spawn([job(tmp_path / "shifted", noise=0.02, shift_reference=0.3, config=config)]) == [2]
    found = re.search(r"differ by (\S+) nats per token, (\S+) allowed", mistake(tmp_path / "shifted"))
    assert found is not None
    ratio, allowed = map(float, found.groups())
    assert ratio > 0.25 >= allowed > 0.02
    config["precision"] = "fp32"
    assert spawn([job(tmp_path / "exact", noise=0.02, config=config)]) == [2]
    assert "nats per token, 0.0001 allowed" in mistake(tmp_path / "exact")


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_loss_that_is_not_finite_names_its_prompts(tmp_path: Path, stage: int) -> None:
    assert spawn([job(tmp_path, break_set=7, config={"zero_stage": stage, "closed_form_check": False})]) == [2]
    assert "is not finite for set-7; lower train.lr" in mistake(tmp_path)


def carried(out: Path, epochs: int, stage: int, **more: Any) -> dict[str, Any]:
    """Every batch holds all sets, so that an epoch is a step and its order rounding alone."""
    config = {"zero_stage": stage, "global_batch": 24, "epochs": epochs, "schedule": "constant_with_warmup"}
    return job(
        out, config=config | {"checkpoint_every": 2, "closed_form_check": False} | more.pop("config", {}), **more
    )


@pytest.mark.parametrize(("stage", "processes"), [(0, 1), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_an_optimizer_that_is_carried_on_makes_one_training_of_two(tmp_path: Path, stage: int, processes: int) -> None:
    state = {"state": str(tmp_path / "first/checkpoints/policy-000003")}
    first, whole = carried(tmp_path / "first", 3, stage, keep_state=True), carried(tmp_path / "whole", 6, stage)
    second, killed = carried(tmp_path / "second", 3, stage, **state), carried(tmp_path / "killed", 3, stage, **state)
    assert spawn([first, whole, second], processes) == [0] * processes
    assert curve(tmp_path / "second", "step") == [1, 2, 3]
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "second")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0.0, atol=2e-5)
    torch.testing.assert_close(curve(tmp_path / "second"), curve(tmp_path / "whole")[3:], rtol=1e-4, atol=1e-6)
    assert 0 not in spawn([carried(tmp_path / "killed", 3, stage, kill_at=1, **state)], processes)
    assert spawn([killed], processes) == [0] * processes
    assert all(torch.equal(found[name], weights(tmp_path / "killed")[name]) for name in found)


def test_a_state_that_is_damaged_or_of_other_processes_is_refused(tmp_path: Path) -> None:
    assert spawn([carried(tmp_path / "first", 2, 2, keep_state=True)]) == [0]
    state = tmp_path / "first/checkpoints/policy-000002"
    assert spawn([carried(tmp_path / "second", 2, 2, state=str(state))], 2) == [2, 2]
    assert "the optimizer's state is of 1 processes, but there are 2" in mistake(tmp_path / "second")
    flip(next(state.rglob("*optim_states.pt")))
    assert spawn([carried(tmp_path / "second", 2, 2, state=str(state))]) == [2]
    assert "the optimizer's state is damaged (" in mistake(tmp_path / "second")
