"""The scoring stage: held-out sets may be judged by another function than training sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpo.cache.stage import Nothing
from mpo.data.store import read_stored_sets, write_sets
from mpo.stages import score
from mpo.stages.context import StageContext
from mpo.stages.nodes import score as node
from mpo.testbed.reward import true_reward
from mpo.types import Message, Response, ResponseSet

PROMPT, ANSWER = (
    "write 2 sentences about garden ; use : rose ; no names",
    "the bee sees the rose . the tree likes the fence .",
)
SCORER = "mpo.score.function.FunctionScorer"


def test_the_proxy_scores_what_is_trained_on_and_the_truth_what_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "out").mkdir()
    for split in ("train", "heldout"):
        write_sets(
            tmp_path / "sets" / f"{split}.parquet",
            [ResponseSet("a", (Message("user", PROMPT),), (Response(ANSWER), Response("the bee .")))],
        )
    proxy = {
        "_target_": SCORER, "function": "mpo.testbed.reward.proxy_reward", "options": {"length_bias": 1.0},
    }  # fmt: skip
    truth = {"_target_": SCORER, "function": "mpo.testbed.reward.true_reward"}
    config = node.Config({"proxy": proxy}, {"truth": truth}, [])
    score.run(StageContext("score", config, Nothing(), node.Inputs(tmp_path / "sets"), tmp_path / "out"))
    (trained,), (held,) = (
        list(read_stored_sets(tmp_path / "out" / f"{split}.parquet")) for split in ("train", "heldout")
    )
    for longer, true, text in zip(trained.responses, held.responses, (ANSWER, "the bee ."), strict=True):
        assert dict(true.scores) == {"truth": true_reward(PROMPT, text)} and true.score is None
        assert dict(longer.scores) == {"proxy": true.scores["truth"] + len(text.split())}


SEEN: list[str] = []


class Killed(BaseException):
    """As a kill: nothing of ours takes it."""


def until(prompt: str, text: str, calls: int) -> float:
    SEEN.append(text)
    if len(SEEN) == calls:
        raise Killed
    return float(text)


def test_a_stopped_stage_goes_on_after_the_sets_that_it_has_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "SETS_AT_ONCE", 2)
    for name in ("sets", "out"):
        (tmp_path / name).mkdir()
    sets = [ResponseSet(str(i), (Message("user", "q"),), (Response(f"{i}.5"), Response(f"{i}"))) for i in range(5)]
    write_sets(tmp_path / "sets" / "train.parquet", sets)

    def run(calls: int) -> None:
        SEEN.clear()
        scorer = {"_target_": SCORER, "function": f"{__name__}.until", "options": {"calls": calls}}
        config = node.Config({"until": scorer}, {}, [])
        score.run(StageContext("score", config, Nothing(), node.Inputs(tmp_path / "sets"), tmp_path / "out"))

    with pytest.raises(Killed):
        run(7)
    run(99)
    assert sorted(SEEN) == ["2", "2.5", "3", "3.5", "4", "4.5"]
    found = list(read_stored_sets(tmp_path / "out" / "train.parquet"))
    assert [[each.scores["until"] for each in one.responses] for one in found] == [
        [i + 0.5, float(i)] for i in range(5)
    ]
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_several_scorers_lie_side_by_side(tmp_path: Path) -> None:
    for name in ("sets", "out"):
        (tmp_path / name).mkdir()
    sets = [ResponseSet("a", (Message("user", PROMPT),), (Response(ANSWER, score=3.0), Response("the bee .")))]
    write_sets(tmp_path / "sets" / "train.parquet", sets)
    scorers = {
        name: {"_target_": SCORER, "function": f"mpo.testbed.reward.{name}"} for name in ("true_reward", "proxy_reward")
    }
    config = node.Config(scorers, {}, [])
    score.run(StageContext("score", config, Nothing(), node.Inputs(tmp_path / "sets"), tmp_path / "out"))
    (one,) = read_stored_sets(tmp_path / "out" / "train.parquet")
    for each in one.responses:
        assert dict(each.scores) == dict.fromkeys(scorers, true_reward(PROMPT, each.text))
    assert [each.score_by("data") for each in one.responses] == [3.0, None]
    assert set(one.responses[0].score_names) == {"data", *scorers}
