"""The group that a run starts by itself: two processes see what one sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import CommandLine, Outcome


def test_two_processes_have_the_loss_curve_of_one(first_run: Outcome, mpo: CommandLine) -> None:
    two = mpo.testbed("launcher.processes=2", "train.micro_batch=2", "model.scratch.sft.micro_batch=16")
    one = mpo.testbed("model.scratch.sft.micro_batch=16")
    assert [row["loss"] for row in two.metrics] == pytest.approx([row["loss"] for row in one.metrics], rel=1e-6)
    trained = next(Path(row["path"]) for row in two.result["stages"] if row["name"] == "train")
    assert len(list(trained.glob("logs/*/*/*/stderr.log"))) == 2
