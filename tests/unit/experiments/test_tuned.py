from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from mpo.errors import ConfigError, DataError
from mpo.experiments.cells import tuned_settings
from mpo.experiments.spec import Axis, Kind, Row
from mpo.experiments.tuned import write_tuned
from tests.unit.experiments.conftest import SCALE, Finish, cells, estimates, experiment


def test_the_best_finite_setting_of_each_loss(finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    axis = Axis(label="learning rate", overrides={"1e-3": ["train.lr=1e-3"], "2e-3": ["train.lr=2e-3"]})
    rows = {"dpo": Row(["loss=dpo"]), "mpo": Row(["loss=mpo"])}
    of = experiment(kind=Kind.tuning, rows=rows, axis=axis, claims=[], compare=None)
    found = {("dpo", "1e-3"): 6.0, ("dpo", "2e-3"): 7.0, ("mpo", "1e-3"): 5.0, ("mpo", "2e-3"): math.nan}
    tried = cells(of)
    assert {cell.unit for cell in tried} == {SCALE.tuning_unit}
    with pytest.raises(DataError, match="4 runs are missing"):
        write_tuned(of, tried, "any", SCALE, tmp_path / "runs")
    for cell in tried:
        finish(cell, estimates(found[cell.row, cell.value]))
    path = write_tuned(of, tried, "any", SCALE, tmp_path / "runs")
    assert path == tmp_path / "experiments/tuned/any.yaml"
    assert tuned_settings("any") == {"dpo": ["train.lr=2e-3"], "mpo": ["train.lr=1e-3"]}
    assert yaml.safe_load(path.read_text())["tried"]["mpo"] == {"1e-3": 5.0, "2e-3": None}
    assert "the best of 2 by true reward at unit 100" in path.read_text() and "commit abc" in path.read_text()


def test_a_loss_that_only_diverged_is_named(finish: Finish, tmp_path: Path) -> None:
    axis = Axis(label="learning rate", overrides={"1e-3": ["train.lr=1e-3"]})
    of = experiment(kind=Kind.tuning, axis=axis)
    for cell in cells(of):
        finish(cell, estimates(math.nan if cell.row == "MPO" else 6.0))
    with pytest.raises(DataError, match="no setting of MPO has a finite true reward"):
        write_tuned(of, cells(of), "any", SCALE, tmp_path / "runs")


def test_a_loss_may_try_other_settings_than_the_rates(
    finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    axis = Axis(label="learning rate", overrides={"1e-3": ["train.lr=1e-3"]})
    rows = {"mpo": Row(["loss=mpo"]), "ipo": Row(["loss=ipo"], tried={"beta 0.1": ["train.lr=5e-4", "loss.beta=0.1"]})}
    of = experiment(kind=Kind.tuning, rows=rows, axis=axis, claims=[], compare=None)
    for cell in cells(of):
        finish(cell, estimates(6.0))
    write_tuned(of, cells(of), "any", SCALE, tmp_path / "runs")
    assert tuned_settings("any") == {"mpo": ["train.lr=1e-3"], "ipo": ["train.lr=5e-4", "loss.beta=0.1"]}


def test_a_file_without_chosen_settings_is_a_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments/tuned").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for text in ("lr: {dpo: 1e-3}", "chosen: {dpo: 1e-3}"):
        (tmp_path / "experiments/tuned/any.yaml").write_text(text)
        with pytest.raises(ConfigError, match="make tuning SCALE=any"):
            tuned_settings("any")
