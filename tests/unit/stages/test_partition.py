"""The partition stage on sets of the testbed."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mpo.config.schema import ScoreTransformConfig
from mpo.data.assignments import Assignments
from mpo.data.tokens import tokenize_sets
from mpo.errors import DataError
from mpo.stages import partition
from mpo.stages.context import StageContext, to_plain
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, Response, ResponseSet

SCORES = (9.0, 7.0, 4.0, 1.0)


def prepared(tmp_path: Path) -> Path:
    build_tokenizer(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    for split in ("train", "heldout"):
        sets = [
            ResponseSet(f"{split}-{i}", (Message("user", "write"),), tuple(Response("garden", score=s) for s in SCORES))
            for i in range(3)
        ]
        tokenize_sets(
            sets, tokenizer, max_prompt_tokens=20, max_tokens=30, out=tmp_path / "prepare" / split, processes=1,
            on_problem=lambda problem: None,
        )  # fmt: skip
    return tmp_path / "prepare"


def run(tmp_path: Path, score_range: list[float] | None = None, which: str = "BestVsWorst", **transform: float) -> Path:
    config = {
        "partition": {"_target_": f"mpo.partition.{which}"}, "seed": 0,
        "contrasts": True, "needs_scores": True, "needs_sides": True,
        "score_range": score_range, "allow_targets": [], "transform": to_plain(ScoreTransformConfig(**transform)),
    }  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    partition.run(StageContext("partition", config, {"prepare": prepared(tmp_path)}, {}, out))
    return out


def test_noise_reaches_training_scores_alone(tmp_path: Path) -> None:
    out = run(tmp_path, scale=2.0, noise_sigma=1.0)
    doubled = [2.0 * score for score in SCORES]
    noisy, clean = Assignments.load(out / "train"), Assignments.load(out / "heldout")
    assert all(clean.scores(i) == doubled for i in range(3))
    assert all(noisy.scores(i) != doubled for i in range(3))
    assert noisy.scores(0) != noisy.scores(1)


def test_a_score_that_the_loss_is_not_defined_for_names_its_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train-0: score 18 is outside the 0 to 10"):
        run(tmp_path, [0.0, 10.0], scale=2.0)


def test_a_set_without_the_marks_that_a_partition_needs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set train-0: partition given needs accepted/rejected marks"):
        run(tmp_path, which="Given")
