"""Cards by name, and the forecast of a training on one of them by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpo.config.schema import LauncherConfig, RunConfig
from mpo.config.training import Precision, TrainConfig
from mpo.errors import ConfigError
from mpo.planning.cards import CARDS, DRIVERS_NAMES, UTILISATION, data_sheet, named_card
from mpo.planning.compute import forward_flops, step_work
from mpo.planning.data_size import DataSize
from mpo.planning.forecast import forecast, planned_device
from tests.unit.planning.test_forecast import SETS, SHAPE


def on(device: str | None, processes: int = 1, **train: object) -> RunConfig:
    launcher = LauncherConfig(processes=processes, device=device)
    return RunConfig(dry_run=True, launcher=launcher, train=TrainConfig(global_batch=8, **train))  # type: ignore[arg-type]


def test_cards_are_found_by_name() -> None:
    h100 = named_card(on("h100"))
    assert h100 is not None and (h100.memory, h100.bf16_flops, h100.bandwidth) == (80 * 10**9, 989e12, 3.35e12)
    assert h100.rate(Precision.bf16) == UTILISATION * 989e12 and h100.rate(Precision.fp32) == UTILISATION * 67e12
    assert named_card(on(None)) is None


def test_a_card_that_is_here_has_its_own_data_sheet_or_none() -> None:
    assert data_sheet("NVIDIA H100 80GB HBM3") is CARDS["h100"] and data_sheet("NVIDIA H100 PCIe") is CARDS["h100-pcie"]
    assert data_sheet("NVIDIA H100 NVL") is None and data_sheet("NVIDIA A10G") is None
    assert sorted(DRIVERS_NAMES.values()) == sorted(CARDS)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_what_a_card_can_do_is_plausible(name: str) -> None:
    """A slip of a digit or a unit: TFLOP/s with sparsity, GB/s in place of bytes."""
    card = CARDS[name]
    assert 20e9 < card.memory < 200e9 and 2e11 < card.bandwidth < 1e13
    assert 1.9 < card.bf16_flops / card.fp32_flops <= 30 and 70e12 <= card.bf16_flops <= 2.25e15
    assert card.title.startswith("NVIDIA") and name == name.lower()


@pytest.mark.parametrize(("name", "near"), [("h10", "h100"), ("H200", "h200"), ("a100_80gb", "a100-80gb")])
def test_an_unknown_card_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named_card(on(name))
    assert str(caught.value) == (
        f"launcher.device: no data sheet of a card '{name}' is known here; did you mean '{near}'?"
    )


def test_a_step_takes_its_flops_at_the_planned_share_of_the_peak(tmp_path: Path) -> None:
    config = on("l40s", 2)
    found = forecast(config, SHAPE, SETS, tmp_path)
    assert found.seconds == pytest.approx(step_work(SHAPE, config.train, SETS, 2).flops / (0.4 * 362e12))
    assert found.machine == "NVIDIA L40S at 40 % of its peak" and found.bf16_speedup == 1
    assert not (tmp_path / "machine").exists()  # nothing of this machine was measured
    assert planned_device(config) == "cuda"
    more = forecast(on("l40s", 4), SHAPE, SETS, tmp_path)
    assert more.seconds is not None and more.seconds < found.seconds
    single = forecast(on("l40s", 2, precision=Precision.fp32), SHAPE, SETS, tmp_path)
    assert single.bf16_speedup == pytest.approx(362 / 91.6)


def test_a_reference_forwards_layers_and_head_once() -> None:
    one = DataSize(1, 3, 4, 2)
    layers = 2 * 10 * 2 * (4 * 8 * 8 + 3 * 8 * 16) + 4 * 8 * (4 * 4 / 2 + 3 * (2 * 4 + 2 * 2 / 2)) * 2
    assert forward_flops(SHAPE, one) == layers + 2 * 6 * 32 * 8
    assert forward_flops(SHAPE, SETS) == 10 * forward_flops(SHAPE, one)
