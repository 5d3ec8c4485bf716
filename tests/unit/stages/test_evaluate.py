"""Judged win rates in their stage: files beside the estimates, options that do not count, a judge that vLLM loads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mpo.config.nodes import apart, together
from mpo.data.store import write_sets
from mpo.evaluate.annotations.judgements import read_judgements
from mpo.evaluate.annotations.win_rates import win_rates
from mpo.evaluate.judged_win_rate import JudgedWinRate
from mpo.stages import evaluate
from mpo.stages.context import StageContext
from mpo.stages.nodes import evaluate as node
from tests.unit.evaluate.judged_samples import Texts, measure, samples
from tests.unit.evaluate.test_judged_win_rate import TEXTS, likes
from tests.unit.sample.loopback import serving
from tests.unit.score import test_llm_judge_engine

TARGET = "mpo.evaluate.judged_win_rate.JudgedWinRate"


def run(tmp_path: Path, made: JudgedWinRate, texts: Texts) -> dict[str, Any]:
    """``evaluation.json`` of the stage, its options apart as a run has them."""
    given = samples(texts)
    for name, sets in (("start", given.start), ("policy", given.policy), ("out", None)):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        if sets is not None:
            write_sets(tmp_path / name / "heldout.parquet", sets)
    options = {"_target_": TARGET, **{each.name: getattr(made, each.name) for each in dataclasses.fields(made)}}
    kept, taken = apart(options, made.change_nothing)
    context = StageContext(
        "evaluate",
        node.Config(kept, seed=0),
        node.Settings(8, 1024, taken, verdicts=str(tmp_path / "verdicts")),
        node.Inputs(start_samples={"0.7": tmp_path / "start"}, policy_samples={"0.7": tmp_path / "policy"}),
        tmp_path / "out",
    )
    context.write()
    evaluate.run(StageContext.read(tmp_path / "out" / "stage.json"))
    found: dict[str, Any] = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    return found


def test_annotations_stand_beside_the_estimates_and_addresses_do_not_count(tmp_path: Path) -> None:
    with serving(likes(0.4)) as server:
        made = measure(server)
        found = run(tmp_path, made, TEXTS)
        again = run(tmp_path, measure(server, repeats=1), TEXTS)
        assert len(server.bodies("chat/completions")) == 10 and again == found  # which the folder of verdicts has
    kept, taken = apart({"judges": made.judges, "repeats": 1}, made.change_nothing)
    assert taken["judges"]["judge"]["urls"] == [server.url] and set(taken) == {"judges"}
    assert not {"urls", "timeout_s", "concurrency", "key_variable", "attempts"} & set(kept["judges"]["judge"])
    assert together(kept, taken) == {"judges": made.judges, "repeats": 1}
    assert set(found) == {"estimates", "distributions", "samples", "by_prompt"}
    (group,) = win_rates(read_judgements([str(tmp_path / "out" / "annotations@0.7.json")], None, pytest.fail))
    rates = {row["metric"]: row["value"] for row in found["estimates"]}
    assert rates["win_rate"] == group.models[0].win_rate / 100
    assert rates["length_controlled_win_rate"] == group.models[0].length_controlled / 100


def test_a_judge_and_a_file_of_answers_are_read_by_content(tmp_path: Path) -> None:
    judges = {"a": {"_target_": "mpo.score.reward_model.RewardModel", "path": "owner/rm", "revision": "b1"}}
    made = measure(judges=judges, baseline=str(tmp_path / "answers.json"))
    assert made.models == {"a": ("owner/rm", "b1")} and made.files == {"baseline"}


@pytest.mark.slow
def test_a_judge_that_vllm_loads(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (make install-vllm)")
    judge = test_llm_judge_engine.node(test_llm_judge_engine.saved(tmp_path / "judge"))
    made = measure(judges={"tiny": judge})
    made.check()
    found = {row["metric"]: row for row in run(tmp_path, made, TEXTS)["estimates"]}
    assert found["win_rate"]["value"] == pytest.approx(0.5) and found["win_rate"]["judge"] == "tiny"
    # It says A with probability 0.84 and B with 0.11, whatever it reads, so that the order decides all.
    assert found["position_bias"]["value"] == pytest.approx(0.864 - 0.5, abs=1e-3)
    assert (found["order_decides"]["value"], found["missing_verdicts"]["value"]) == (1.0, 0.0)
