"""Benchmarks in whole runs: what they find beside the other measures, and what fails before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import CommandLine, Outcome
from tests.unit.evaluate.local_tasks import task_files
from tests.unit.sample.loopback import serving

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
    assert f"{HARNESS}.tasks: task far_away cannot be loaded: ConnectionError: Couldn't reach 'owner/far_away'" in said


@pytest.mark.slow
def test_mt_bench_with_two_turns_and_a_judge(first_run: Outcome, mpo: CommandLine, tmp_path: Path) -> None:
    asked = ["write 2 sentences about garden ; use : rose", "write 1 sentences about river ; use : boat"]
    rows = [
        {"question_id": 81 + i, "category": category, "turns": asked[:: 1 - 2 * (i % 2)]}
        for i, category in enumerate(["writing", "stem", "extraction"])
    ]
    file = tmp_path / "question.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def judge(path: str, body: Any) -> tuple[int, Any]:
        score = 4 if "second question" in body["messages"][0]["content"] else 8
        said = "Hm." if len(server.asked) == 1 else f"[[{score}]]"
        return 200, {"choices": [{"message": {"role": "assistant", "content": said}}]}

    key = "evaluate.measures.mt_bench"
    with serving(judge) as server:
        chosen = (
            "evaluate=[testbed,mt_bench]", f"{key}.question_file={file}", f"{key}.model=judge",
            f"{key}.url={server.url}", f"{key}.max_new_tokens=20", f"{key}.concurrency=1", f"{key}.against_start=true",
        )  # fmt: skip
        outcome = mpo.testbed(*chosen)
        graded = [body["messages"][1]["content"] for body in server.bodies("chat/completions")]
        assert 6 < len(graded) == len(set(graded)) + 1  # six answers of each policy, equal ones once, the first again
        stages = [f"evaluate/mt_bench/{who}answers@{at}" for who in ("", "start_") for at in ("0.7", "0.1", "0")]
        assert outcome.started == [*stages, "evaluate/mt_bench"]
        score = outcome.measures["MT-Bench score"]
        assert (score.value, score.n, score.judge, score.baselines[0].value) == (6.0, 3, "judge", 6.0)
        (folder,) = [row["path"] for row in outcome.result["stages"] if row["name"] == "evaluate/mt_bench"]
        lines = (Path(folder) / "model_answer" / "policy.jsonl").read_text().splitlines()
        answers = [json.loads(line)["choices"][0]["turns"] for line in lines]
        assert [len(turns) for turns in answers] == [2, 2, 2] and all(text for turns in answers for text in turns)
        again = mpo.testbed(*chosen, f"{key}.url=http://localhost:1/v1")
        assert again.started == [] and again.measures["MT-Bench score"] == score
        assert mpo.testbed(*chosen, f"{key}.retries=1").started == ["evaluate/mt_bench"]
    missing = mpo.testbed(*chosen, f"{key}.question_file=none.jsonl", "train.lr=1e-5", code=2)
    assert missing.started == [] and f"{key}.question_file: 'none.jsonl' cannot be read" in missing.mistakes[0]
