"""Made-up runs, clearly so, to render pages from."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpo.evaluate.records import Baseline, Distribution, Estimate, SampleRow
from mpo.report.records import RunReport, StageRow

MakeRun = Callable[..., RunReport]


FEW = {"step", "loss", "accuracy"}
"""Metrics of most invented runs: drawing every panel is tested once, and takes seconds."""


def estimate(metric: str, value: float, error: float, unit: str, *baselines: Baseline) -> Estimate:
    """Over 400 prompts."""
    return Estimate(metric, value, error, 400, unit, baselines=baselines)


def metric_rows(steps: int, seed: int) -> list[dict[str, Any]]:
    """Invented training metrics of one round, K = 4."""
    draw = random.Random(seed)
    rows = []
    for step in range(1, steps + 1):
        learned = 1 - math.exp(-3 * step / steps)

        def noisy(value: float, spread: float = 0.05) -> float:
            return value + draw.gauss(0, spread)

        rows.append(
            {
                "step": step,
                "loss": noisy(0.69 - 0.35 * learned),
                "margin": noisy(1.8 * learned, 0.15),
                "accuracy": min(1.0, noisy(0.5 + 0.3 * learned, 0.04)),
                "reward_accepted": noisy(0.6 * learned),
                "reward_rejected": noisy(-1.2 * learned),
                **{f"reward/rank_{i}": noisy((0.6 - 0.6 * i) * learned) for i in range(4)},
                **{f"likelihood/rank_{i}": noisy(0.45 + (0.1 - 0.06 * i) * learned, 0.01) for i in range(4)},
                "kl": noisy(0.4 * learned, 0.01),
                "weight_mean": noisy(1.2, 0.02),
                "weight_max": noisy(1.9, 0.1),
                "lr": 1e-3 * min(1.0, step / 10) * (1 - step / (steps + 1)),
                "grad_norm": abs(noisy(1.5 - learned, 0.2)),
                "tokens_per_second": noisy(9000, 200),
            }
        )
    return rows


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes an invented run in its own folder; ``reward`` is its evaluated true reward."""

    def make(
        name: str = "invented",
        loss: str = "MPO",
        seed: int = 0,
        reward: float = 6.5,
        rounds: int = 1,
        steps: int = 60,
        full: bool = False,
    ) -> RunReport:
        folder = tmp_path / name
        folder.mkdir()
        paths = []
        for number in range(rounds):
            path = folder / f"metrics_{number}.jsonl"
            rows = metric_rows(steps, seed + 10 * number)
            rows = [{key: value for key, value in row.items() if full or key in FEW} for row in rows]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            paths.append(path.name)
        draw = random.Random(seed)
        return RunReport(
            folder=folder,
            name=name,
            title=f"Invented test run: {loss}",
            config={
                "seed": seed,
                "name": name,
                "data": {"source": "testbed", "heldout": 400},
                "loss": {"_target_": f"mpo.losses.{loss}", "beta": 0.3},
                "regime": {"name": "iterative" if rounds > 1 else "off_policy", "rounds": rounds},
                "train": {"lr": 1e-3, "precision": "bf16"},
            },
            seed=seed,
            versions={"mpo": "0.1.0", "torch": "2.13.0"},
            commit="0123456789abcdef (test data)",
            hardware="a made-up machine, 2 cores",
            command="python -m mpo.run loss=mpo data=testbed",
            created="2026-01-01T00:00:00+00:00",
            stages=(
                StageRow("data", True, 0.0, 310 * 2**20, "cache/data/aa11"),
                StageRow("sample", False, 3.4, 900 * 2**20, "cache/sample/bb22"),
                StageRow("train", False, 128.0, int(1.6 * 2**30), "cache/train/cc33"),
            ),
            metrics_paths=tuple(paths),
            note="micro-scale testbed",
            evaluation=(
                estimate("true_reward", reward, 0.05, "points", Baseline("starting policy", 4.31, 0.05)),
                estimate("win_rate", 0.792, 0.012, "", Baseline("starting policy", 0.5)),
                estimate(
                    "ranking_accuracy",
                    0.71,
                    0.011,
                    "",
                    Baseline("starting policy", 0.53, 0.01),
                    Baseline("longer response wins", 0.55),
                ),
                estimate("length", 21.3, 0.4, "tokens", Baseline("starting policy", 19.8, 0.4)),
            ),
            distributions=(
                Distribution(
                    "true reward",
                    "points",
                    {
                        "starting policy": tuple(draw.gauss(4.3, 1.8) for _ in range(800)),
                        "trained policy": tuple(draw.gauss(6.5, 1.5) for _ in range(800)),
                    },
                ),
            ),
            data_facts={"response sets": 4000, "responses per set": 8, "held-out prompts": 400},
            skipped={"one_response": 3, "truncated": 17},
            samples=(
                SampleRow(
                    "write 2 sentences about garden ; use : rose",
                    "the rose sleeps .",
                    "a rose grows slowly .",
                    3.1,
                    8.2,
                ),
                SampleRow(
                    "<script>alert('p')</script> & more", "<b>bold</b>\nsecond line", "plain $x$ answer", None, 5.0
                ),
            ),
        )

    return make
