"""The partition stage on sets of the testbed."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from mpo.config.schema import ScoreTransformConfig
from mpo.data.assignments import Assignments
from mpo.data.tokens import tokenize_sets
from mpo.stages import partition
from mpo.stages.context import StageContext, to_plain
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, Response, ResponseSet

SCORES = (9.0, 7.0, 4.0, 1.0)


def test_noise_reaches_training_scores_alone(tmp_path: Path) -> None:
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
    out = tmp_path / "out"
    out.mkdir()
    config = {
        "partition": {"_target_": "mpo.partition.BestVsWorst"}, "contrasts": True, "needs_sides": True, "seed": 0,
        "allow_targets": [], "transform": to_plain(ScoreTransformConfig(scale=2.0, noise_sigma=1.0)),
    }  # fmt: skip
    partition.run(StageContext("partition", config, {"prepare": tmp_path / "prepare"}, {}, out))
    doubled = [2.0 * score for score in SCORES]
    noisy, clean = Assignments.load(out / "train"), Assignments.load(out / "heldout")
    assert all(clean.scores(i) == doubled for i in range(3))
    assert all(noisy.scores(i) != doubled for i in range(3))
    assert noisy.scores(0) != noisy.scores(1)
