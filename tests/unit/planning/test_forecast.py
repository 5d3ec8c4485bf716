"""Work of a step by hand; rates of this machine, measured once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mpo.config.schema import LauncherConfig, RunConfig
from mpo.config.training import LoraConfig, Precision, TrainConfig
from mpo.pipeline.plan import time_line
from mpo.planning.compute import step_work
from mpo.planning.data_size import DataSize
from mpo.planning.forecast import forecast
from mpo.planning.machine import Machine, this_machine
from mpo.planning.sizes import read_architecture
from mpo.report.records import Planned

SHAPE = read_architecture(
    {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 32,
        "tie_word_embeddings": True,
    }
)
SETS = DataSize(sets=10, responses=3, prompt_tokens=4, response_tokens=2)
TRAIN = TrainConfig(global_batch=6, precision=Precision.fp32, zero_stage=0, activation_checkpointing=False)


def test_flops_are_counted_by_hand() -> None:
    forward = 2 * 10 * 2 * (4 * 8 * 8 + 3 * 8 * 16)  # 10 tokens per set through two layers' matrices
    forward += 4 * 8 * (4 * 4 / 2 + 3 * (2 * 4 + 2 * 2 / 2)) * 2  # scores and values of the pairs that see each other
    head = 2 * 6 * 32 * 8  # 6 response tokens
    assert step_work(SHAPE, TRAIN, SETS, 1).flops == 6 * (3 * forward + 4 * head)
    assert step_work(SHAPE, TRAIN, SETS, 2).flops == 3 * (3 * forward + 4 * head)
    checkpointed = step_work(SHAPE, replace(TRAIN, activation_checkpointing=True), SETS, 1).flops
    assert checkpointed == 6 * (4 * forward + 4 * head)
    one_of_two = step_work(SHAPE, replace(TRAIN, activation_checkpointing=2), SETS, 1).flops
    assert one_of_two == 6 * (3.5 * forward + 4 * head)
    halves = step_work(SHAPE, replace(TRAIN, micro_tokens=5), SETS, 1).flops
    assert halves == 6 * (3.5 * forward + 4 * head)  # one of two pieces is forwarded twice, the head once
    assert step_work(SHAPE, replace(TRAIN, lora=LoraConfig()), SETS, 1).flops == 6 * (2 * forward + 3 * head)


def test_seconds_are_those_of_products_and_of_memory() -> None:
    work = step_work(SHAPE, TRAIN, SETS, 1)
    fast = Machine("", work.flops, work.traffic / 2)
    assert work.seconds(fast) == pytest.approx(3.0)
    spread = step_work(SHAPE, replace(TRAIN, zero_stage=1), SETS, 2)
    assert spread.traffic < work.traffic / 2 + 1e-9


def test_a_machine_is_measured_once(tmp_path: Path) -> None:
    first = this_machine(tmp_path, 64, 128, Precision.fp32, 1)
    assert first.flops_per_second > 1e8 and first.bytes_per_second > 1e8
    assert this_machine(tmp_path, 64, 128, Precision.fp32, 1) == first
    assert len(list((tmp_path / "machine").iterdir())) == 1
    this_machine(tmp_path, 64, 128, Precision.bf16, 1)
    assert len(list((tmp_path / "machine").iterdir())) == 2


@pytest.mark.parametrize(("bf16", "explained"), [(4e9, "bf16 run 4.0 times as fast"), (1.2e9, None)])
def test_the_plan_tells_of_matrix_units(
    bf16: float, explained: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rates(cache: Path, hidden: int, intermediate: int, precision: Precision, threads: int) -> Machine:
        return Machine("this CPU", bf16 if precision is Precision.bf16 else 1e9, 1e9)

    monkeypatch.setattr("mpo.planning.forecast.this_machine", rates)
    config = RunConfig(train=TRAIN)
    line = time_line(config, forecast(config, SHAPE, SETS, tmp_path), SETS)
    assert "on this CPU" in line and (explained in line if explained else "bf16" not in line)


def test_on_a_named_card_the_line_says_tokens_a_second(tmp_path: Path) -> None:
    config = RunConfig(dry_run=True, launcher=LauncherConfig(processes=2, device="h100"), train=TRAIN)
    found = forecast(config, SHAPE, SETS, tmp_path)
    assert found.seconds is not None
    line = time_line(config, found, SETS)
    assert "on NVIDIA H100 SXM at 40 % of its peak" in line and "bf16 run 14.8 times as fast on it" in line
    assert f"{6 * (4 + 3 * 2) / 2 / found.seconds:,.0f} tokens a second and card" in line


def test_plan_and_truth_read_as_one_line() -> None:
    assert str(Planned("a step", "seconds", 0.05, 0.1)) == "50 ms planned, 100 ms measured (2.00 times)"
    assert str(Planned("memory", "bytes", 2**30, 2**29)) == "1.0 GiB planned, 512 MiB measured (0.50 times)"
