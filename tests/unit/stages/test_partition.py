"""The partition stage on sets of the testbed."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mpo.cache.stage import Nothing
from mpo.config.schema import ScoreTransformConfig
from mpo.data.assignments import Assignments
from mpo.data.tokens import tokenize_sets
from mpo.errors import DataError
from mpo.stages import partition
from mpo.stages.context import StageContext
from mpo.stages.nodes import partition as node
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, Response, ResponseSet

SCORES = (9.0, 7.0, 4.0, 1.0)


def prepared(tmp_path: Path, marked: int) -> Path:
    build_tokenizer(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    for split in ("train", "heldout"):
        sets = [
            ResponseSet(
                f"{split}-{i}",
                (Message("user", "write"),),
                tuple(Response("garden", score=s, accepted=s > 5 if i >= 3 - marked else None) for s in SCORES),
            )
            for i in range(3)
        ]
        tokenize_sets(
            sets, tokenizer, max_prompt_tokens=20, max_tokens=30, out=tmp_path / "prepare" / split, processes=1,
            on_problem=lambda problem: None,
        )  # fmt: skip
    return tmp_path / "prepare"


def run(
    tmp_path: Path,
    score_range: list[float] | None = None,
    which: str = "BestVsWorst",
    share: float = 0.1,
    marked: int = 0,
    **transform: float,
) -> Path:
    config = node.Config(
        {"_target_": f"mpo.partition.{which}"}, "data", "data", ScoreTransformConfig(**transform), seed=0,
        contrasts=True, needs_scores=True, needs_sides=True, score_range=score_range, max_skipped_share=share,
        allow_targets=[],
    )  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    partition.run(StageContext("partition", config, Nothing(), node.Inputs(prepared(tmp_path, marked)), out))
    return out


def test_noise_reaches_training_scores_alone(tmp_path: Path) -> None:
    out = run(tmp_path, scale=2.0, noise_sigma=1.0)
    doubled = [2.0 * score for score in SCORES]
    noisy, clean = Assignments.load(out / "train"), Assignments.load(out / "heldout")
    assert all(clean.scores(i) == doubled for i in range(3))
    assert all(noisy.scores(i) != doubled for i in range(3))
    assert noisy.scores(0) != noisy.scores(1)


def test_a_score_that_the_loss_is_not_defined_for_names_its_set(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"train-0: score 18 is outside the 0 to 10 .*\(3 of 3 sets cannot be used\); raise loss"
    ):
        run(tmp_path, [0.0, 10.0], scale=2.0)


def test_a_set_without_the_marks_that_a_partition_needs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set train-0: partition given needs accepted/rejected marks"):
        run(tmp_path, which="Given")


def test_few_sets_without_marks_are_skipped_and_counted(tmp_path: Path) -> None:
    assignments = Assignments.load(run(tmp_path, which="Given", share=0.4, marked=2) / "train")
    assert assignments.usable == [1, 2] and assignments.bins(1) == [0, 0, 1, 1]
    assert assignments.skipped == {"refused_by_loss_or_partition": 1}


def test_sets_are_sorted_by_the_score_of_the_name_that_is_chosen(tmp_path: Path) -> None:
    build_tokenizer(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    scores = [{"one": 1.0, "other": 2.0}, {"one": 2.0, "other": 1.0}]
    sets = [ResponseSet("a", (Message("user", "write"),), tuple(Response("garden", scores=each) for each in scores))]
    for split in ("train", "heldout"):
        tokenize_sets(
            sets, tokenizer, max_prompt_tokens=20, max_tokens=30, out=tmp_path / "prepare" / split, processes=1,
            on_problem=lambda problem: None,
        )  # fmt: skip
    (tmp_path / "out").mkdir()
    config = node.Config(
        {"_target_": "mpo.partition.BestVsWorst"}, "one", "other", ScoreTransformConfig(), seed=0, contrasts=True,
        needs_scores=True, needs_sides=True, score_range=None, max_skipped_share=0.0, allow_targets=[],
    )  # fmt: skip
    partition.run(StageContext("partition", config, Nothing(), node.Inputs(tmp_path / "prepare"), tmp_path / "out"))
    assert Assignments.load(tmp_path / "out" / "train").bins(0) == [1, 0]
    assert Assignments.load(tmp_path / "out" / "heldout").scores(0) == [2.0, 1.0]
