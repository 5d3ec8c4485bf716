"""The group that a run starts by itself: two processes see what one sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import CommandLine, Outcome


def test_two_processes_have_the_loss_curve_of_one(first_run: Outcome, mpo: CommandLine) -> None:
    """From one starting policy, for made by another number of processes it would differ in its last bits, and at a
    learning rate at which Adam does not blow such bits up (1.2e-6 was seen at 1e-3)."""
    start = next(Path(row["path"]) for row in first_run.result["stages"] if row["name"] == "start/sft")
    same = (f"model.path={start / 'policy'}", "model.scratch=null", "train.lr=1e-4", "evaluate.samples=1")
    one = mpo.testbed(*same)
    two = mpo.testbed(*same, "launcher.processes=2", "train.micro_batch=2")
    assert [row["loss"] for row in two.metrics] == pytest.approx([row["loss"] for row in one.metrics], rel=1e-6)
    trained = next(Path(row["path"]) for row in two.result["stages"] if row["name"] == "train")
    assert len(list(trained.glob("logs/*/*/*/stderr.log"))) == 2
    assert two.planned["reference"] == "build"
