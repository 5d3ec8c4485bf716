"""Made-up finished runs, clearly so, to fill stores with."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from mpo.evaluate.records import Baseline, Estimate, PromptValues
from mpo.report.records import RunReport
from mpo.results import Results

PROMPTS = tuple(f"prompt{i}" for i in range(40))


def report(
    loss: str = "MPO",
    seed: int = 0,
    reward: float = 6.0,
    created: str = "2026-01-01T00:00:00+00:00",
    prompts: tuple[str, ...] = PROMPTS,
    **changed: Any,
) -> RunReport:
    """A run whose true reward at T=1 is about ``reward``; prompts differ alike in all runs of a seed."""
    draw = random.Random(seed)
    values = [reward + draw.gauss(0, 1) for _ in prompts]
    estimates = (
        Estimate("true_reward", sum(values) / len(values), 0.1, len(values), "of 10", temperature=1.0,
                 baseline="starting policy", baselines=(Baseline("starting policy", 4.3, 0.1),)),
        Estimate("lc_win_rate", 0.6 + reward / 100, 0.02, len(values), temperature=1.0, judge="testbed"),
    )  # fmt: skip
    config = {
        "seed": seed,
        "name": "",
        "cache_dir": "/somewhere",
        "launcher": {"processes": 1},
        "model": {"path": "owner/model", "architecture": {}, "beta": 0.1},
        "loss": {"_target_": f"mpo.losses.{loss}", "beta": 0.3},
        "train": {"lr": 1e-3, "checkpoint_every": 50},
    }
    return RunReport(
        folder=Path("nowhere"),
        name=f"{loss.lower()}-seed{seed}",
        title=f"Invented run: {loss}",
        config=config | changed,
        seed=seed,
        versions={"mpo": "0.1.0", "torch": "2.13.0"},
        commit="0123456789abcdef",
        hardware="a made-up machine",
        command=f"python -m mpo.run loss={loss.lower()}",
        created=created,
        note="micro-scale testbed",
        evaluation=estimates,
        by_prompt=(PromptValues.of(estimates[0], prompts, values),),
    )


@pytest.fixture
def store(tmp_path: Path) -> Results:
    """W-MPO over three seeds and DPO over two of them."""
    made = Results.open(tmp_path / "results")
    for seed, reward in enumerate((6.0, 6.2, 6.4)):
        made.add(report("WMPO", seed, reward))
    for seed in (0, 1):
        made.add(report("DPO", seed, 5.5 + 0.1 * seed, created="2026-01-02T00:00:00+00:00"))
    return made
