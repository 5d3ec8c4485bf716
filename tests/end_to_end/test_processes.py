"""The group that a run starts by itself: two processes see what one sees."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.end_to_end.conftest import TIMEOUT_S, CommandLine, MakeCommandLine, Outcome


def test_two_processes_have_the_loss_curve_of_one(
    first_run: Outcome, mpo: CommandLine, command_lines: MakeCommandLine
) -> None:
    """From one starting policy, for made by another number of processes it would differ in its last bits, and at a
    learning rate at which Adam does not blow such bits up (1.2e-6 was seen at 1e-3)."""
    start = next(Path(row["path"]) for row in first_run.result["stages"] if row["name"] == "start/sft")
    same = (f"model.path={start / 'policy'}", "model.scratch=null", "train.lr=1e-4", "evaluate.temperatures=[]",
            "train.evaluate_every=3", "train.reward_prompts=5")  # fmt: skip
    one = mpo.testbed(*same)
    two = mpo.testbed(*same, "launcher.processes=2", "train.micro_batch=2")
    assert [row["loss"] for row in two.metrics] == pytest.approx([row["loss"] for row in one.metrics], rel=1e-6)
    rewards = [[row["heldout/reward"] for row in each.metrics if "heldout/reward" in row] for each in (one, two)]
    assert rewards[0] and rewards[1] == pytest.approx(rewards[0], rel=1e-6), "each process answers a share"
    trained = next(Path(row["path"]) for row in two.result["stages"] if row["name"] == "train")
    assert len(list(trained.glob("logs/*/*/*/stderr.log"))) == 2
    assert two.planned["reference"] == "cached"  # log-probs are the same whoever computed them
    shared = ("launcher.processes=2", "train.micro_batch=2", "train.sequence_parallel=2")
    together = command_lines().testbed(*same, *shared)  # nothing cached: reference and ranking share rows as well
    assert [row["loss"] for row in together.metrics] == pytest.approx([row["loss"] for row in one.metrics], rel=1e-6)
    assert together.planned["reference"] == together.planned["train"] == "build"
    for name in ("held-out ranking accuracy", "held-out margin"):
        assert together.measures[name].value == pytest.approx(one.measures[name].value, rel=1e-4)


@pytest.mark.slow
def test_two_machines_meet_and_the_first_one_reports(command_lines: MakeCommandLine) -> None:
    mpo = command_lines()
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    meet = ("launcher.nodes=2", f"launcher.rendezvous={socket.gethostname()}:{port}")
    machines = [mpo.start(*mpo.smallest(*meet, f"launcher.node_rank={rank}")) for rank in (0, 1)]
    explained = [process.communicate(timeout=TIMEOUT_S)[1] for process, _ in machines]
    assert [process.returncode for process, _ in machines] == [0, 0], explained
    assert [(folder / "report.html").is_file() for _, folder in machines] == [True, False]
    assert "the first machine reports" in explained[1]
