"""The scoring stage: held-out sets may be judged by another function than training sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from mpo.data.store import read_stored_sets, write_sets
from mpo.errors import DataError
from mpo.score import Item, Scorer
from mpo.stages import score
from mpo.stages.context import StageContext
from mpo.stages.nodes import score as node
from mpo.stages.summary import Summary
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
    score.run(StageContext("score", config, node.Settings(), node.Inputs(tmp_path / "sets"), tmp_path / "out"))
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
        score.run(StageContext("score", config, node.Settings(), node.Inputs(tmp_path / "sets"), tmp_path / "out"))

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
    score.run(StageContext("score", config, node.Settings(), node.Inputs(tmp_path / "sets"), tmp_path / "out"))
    (one,) = read_stored_sets(tmp_path / "out" / "train.parquet")
    for each in one.responses:
        assert dict(each.scores) == dict.fromkeys(scorers, true_reward(PROMPT, each.text))
    assert [each.score_by("data") for each in one.responses] == [3.0, None]
    assert set(one.responses[0].score_names) == {"data", *scorers}


EVENTS: list[str] = []


@dataclass(frozen=True)
class Recording(Scorer):
    """Words times ``factor``; warns of each that is longer than three, and is killed at ``"kill"``."""

    factor: float = 1.0
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        EVENTS.append("built")

    def score(self, items: Sequence[Item]) -> list[float]:
        counts = [len(each.response.content.split()) for each in items]
        EVENTS.extend("long" for count in counts if count > 3)
        if any(each.response.content == "kill" for each in items):
            raise Killed
        return [self.factor * count for count in counts]

    def take_warnings(self) -> dict[str, int]:
        found = EVENTS.count("long")
        EVENTS[:] = [event for event in EVENTS if event != "long"]
        return {"too long": found} if found else {}

    def close(self) -> None:
        EVENTS.append("closed")


def recorded(tmp_path: Path, train: list[list[str]], factor: float = 1.0, heldout: bool = True) -> Summary:
    for name in ("sets", "out"):
        (tmp_path / name).mkdir(exist_ok=True)
    for split, sets in {"train": train, **({"heldout": train[:1]} if heldout else {})}.items():
        rows = [
            ResponseSet(str(i), (Message("user", "q"),), tuple(map(Response, texts))) for i, texts in enumerate(sets)
        ]
        write_sets(tmp_path / "sets" / f"{split}.parquet", rows)
    scorer = {"_target_": f"{__name__}.Recording", "factor": factor}
    config = node.Config({"words": scorer}, {"words": scorer}, [__name__])
    score.run(StageContext("score", config, node.Settings(), node.Inputs(tmp_path / "sets"), tmp_path / "out"))
    return Summary.read(tmp_path / "out")


def test_a_scorer_of_both_splits_is_made_once_and_closed_at_the_end(tmp_path: Path) -> None:
    EVENTS.clear()
    summary = recorded(tmp_path, [["a", "a b"], ["a b c", "a b c d"]])
    assert EVENTS == ["built", "closed"]
    assert summary.facts == {
        "train": {"sets": 2, "mean_words": 2.5, "mean by rank": {"words": [3.0, 2.0]}},
        "heldout": {"sets": 1, "mean_words": 1.5, "mean by rank": {"words": [2.0, 1.0]}},
    }
    assert summary.warnings == {"train": {"words: too long": 1}}
    assert "words, train: too long: 1 of 4 responses" in (tmp_path / "out" / "warnings.txt").read_text()


def test_warnings_of_what_was_scored_before_a_stop_are_counted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "SETS_AT_ONCE", 1)
    EVENTS.clear()
    with pytest.raises(Killed):
        recorded(tmp_path, [["a", "a b c d"], ["a b c d e", "kill"]], heldout=False)
    assert EVENTS[-1] == "closed"
    EVENTS.clear()
    summary = recorded(tmp_path, [["a", "a b c d"], ["a b c d e", "a"]], heldout=False)
    assert summary.warnings == {"train": {"words: too long": 2}}


def test_one_continuous_score_for_a_whole_split_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="score: words gave all 2 responses of train the same score, 0"):
        recorded(tmp_path, [["a", "a b"]], factor=0.0, heldout=False)
    assert EVENTS[-1] == "closed"
