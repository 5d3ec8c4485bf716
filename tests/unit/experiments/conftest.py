"""Made-up experiments and finished runs of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mpo.evaluate.records import Baseline, Estimate
from mpo.experiments.cells import Cell, cells_of
from mpo.experiments.spec import AtScale, Axis, Column, Experiment, Kind, Row, Scale
from mpo.report.records import RunReport, StageRow

Finish = Callable[..., Path]
REWARD = Column(metric="true_reward", label="true reward", temperature=1.0)
WINS = Column(metric="win_rate", label="win rate %", temperature=1.0, times=100, decimals=1)
SCALE = Scale(title="a scale", unit=["seed={unit}"], units=3, columns=[REWARD, WINS], says="Little.", silent="Much.")


def experiment(**more: Any) -> Experiment:
    """Two losses and their starting policy."""
    rows = {"Start": Row(starting_policy=True), "DPO": Row(["loss=dpo"]), "MPO": Row(["loss=mpo"])}
    given: dict[str, Any] = {"title": "Two losses", "paper": "Mine", "rows": rows, "claims": ["MPO > DPO"]}
    return Experiment(**given | {"compare": "MPO"} | more)


def cells(of: Experiment, units: int = 3) -> list[Cell]:
    """Its cells at the scale "any"."""
    return cells_of(of, "any", SCALE, units, {})


def estimates(reward: float, temperature: float | None = 1.0, number: int | None = None) -> list[Estimate]:
    """Of one run, over a starting policy of 4.0."""
    at: dict[str, Any] = {"temperature": temperature, "round": number}
    return [
        Estimate("true_reward", reward, 0.1, baselines=(Baseline("starting policy", 4.0),), **at),
        Estimate("win_rate", reward / 10, baseline="starting policy", baselines=(Baseline("even", 0.5),), **at),
    ]


@pytest.fixture
def finish(tmp_path: Path) -> Finish:
    """Writes the result of a cell's run into the folder that it returns."""

    def write(
        cell: Cell, found: Sequence[Estimate], commit: str = "abc", seconds: float = 3.0, steps: int = 30
    ) -> Path:
        folder = tmp_path / "runs" / cell.key
        folder.mkdir(parents=True)
        records = [{"step": step, "loss": 1 / step, **{f"likelihood/rank_{i}": 0.5 - 0.1 * i for i in range(3)}}
                   for step in range(1, steps + 1)]  # fmt: skip
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        RunReport(
            folder, "invented", "invented", {}, cell.unit, {"mpo": "0.0"}, commit, "made up", "", "2026-01-01",
            stages=(StageRow("train", False, seconds),), metrics_paths=("metrics.jsonl",), evaluation=tuple(found),
        ).save()  # fmt: skip
        return folder.parent

    return write


__all__ = ["REWARD", "SCALE", "WINS", "AtScale", "Axis", "Finish", "Kind", "cells", "estimates", "experiment"]
