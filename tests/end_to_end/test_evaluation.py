"""Benchmarks in whole runs: what they find beside the other measures, and what fails before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import CommandLine, Outcome
from tests.unit.evaluate.local_tasks import task_files

HARNESS = "evaluate.measures.lm_eval"


@pytest.mark.slow
def test_tasks_of_lm_eval_are_asked_of_the_starting_policy_first_and_once(
    first_run: Outcome, mpo: CommandLine, tmp_path: Path
) -> None:
    folder = task_files(tmp_path / "tasks")
    chosen = (
        "evaluate=[testbed,lm_eval]", f"{HARNESS}.include_path={folder}", f"{HARNESS}.precision=fp32",
        f"{HARNESS}.tasks=[bricks,sums]",
    )  # fmt: skip
    outcome = mpo.testbed(*chosen)
    assert outcome.started == ["evaluate/lm_eval/start", "evaluate/lm_eval/policy", "evaluate/lm_eval"]
    found = outcome.measures["lm eval/bricks/acc"]
    assert found.n == 12 and found.baselines[0].name == "starting policy"
    assert outcome.measures["lm eval/bricks/acc/change"].value == pytest.approx(found.value - found.baselines[0].value)
    assert outcome.measures.keys() > first_run.measures.keys()
    other = mpo.testbed(*chosen, "seed=1")
    assert "evaluate/lm_eval/start" not in other.started and "evaluate/lm_eval/policy" in other.started
    failed = mpo.testbed(*chosen, f"{HARNESS}.tasks=[far_away]", "train.lr=1e-5", code=2)
    assert failed.started == ["evaluate/lm_eval/start"]
    (said,) = failed.mistakes
    assert f"{HARNESS}.tasks: task far_away cannot be loaded: Couldn't reach 'owner/far_away' on the Hub" in said
