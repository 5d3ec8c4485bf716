"""The data stage: what is held out, what is skipped, what stops it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo.cache.stage import File
from mpo.config.schema import ScoreTransformConfig
from mpo.data.store import count_stored_sets
from mpo.errors import DataError
from mpo.stages import data
from mpo.stages.context import StageContext
from mpo.stages.nodes import data as node
from mpo.stages.nodes import partition
from mpo.stages.summary import Summary

CONFIG = node.Config(heldout=1, max_skipped_share=0.1, needs_scores=True, contrasts=True)


def rows(path: Path, count: int, broken: int = 0, **more: Any) -> Path:
    lines = [
        json.dumps({"id": f"{i}", "prompt": f"question {i}", "responses": ["a", "b b"], "scores": [1, 2], **more})
        for i in range(count)
    ]
    path.write_text("\n".join([*lines, *["{"] * broken]) + "\n")
    return path


def run(tmp_path: Path, files: dict[str, Path], binning: partition.Config | None = None, **changed: Any) -> Summary:
    out = tmp_path / "out"
    out.mkdir()
    inputs = node.Inputs(**{name: File(str(path)) for name, path in files.items()})
    data.run(StageContext("data", replace(CONFIG, **changed), node.Settings(binning), inputs, out))
    summary = Summary.read(out)
    for split in ("train", "heldout"):
        assert summary.fact("sets", split) == count_stored_sets(out / f"{split}.parquet")
    return summary


def sets(summary: Summary) -> tuple[int, int]:
    return summary.fact("sets", "train"), summary.fact("sets", "heldout")


def test_nothing_need_be_held_out(tmp_path: Path) -> None:
    assert sets(run(tmp_path, {"source": rows(tmp_path / "a.jsonl", 4)}, heldout=0)) == (4, 0)


def test_unusable_rows_of_the_held_out_source_count_for_themselves(tmp_path: Path) -> None:
    files = {"source": rows(tmp_path / "a.jsonl", 40), "heldout_source": rows(tmp_path / "b.jsonl", 3, broken=3)}
    with pytest.raises(DataError, match=r"b.jsonl:4: broken_json.*3 of 6 sets cannot be used"):
        run(tmp_path, files)


def test_skipped_rows_are_told_by_split(tmp_path: Path) -> None:
    files = {"source": rows(tmp_path / "a.jsonl", 40), "heldout_source": rows(tmp_path / "b.jsonl", 3, broken=1)}
    summary = run(tmp_path, files, max_skipped_share=0.5)
    assert summary.skipped == {"train": {data.IS_HELD_OUT: 3}, "heldout": {"broken_json": 1}}
    assert sets(summary) == (37, 3)


def test_a_held_out_source_has_a_layout_of_its_own(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "another question", "chosen": "a", "rejected": "b"}) + "\n")
    more = {"points": [3, 1]}
    files = {"source": rows(tmp_path / "a.jsonl", 4, **more), "heldout_source": pairs}
    summary = run(tmp_path, files, layout="response_sets", score_field="points")
    assert sets(summary) == (4, 1) and not summary.skipped["heldout"]


def test_a_held_out_source_with_every_prompt_leaves_nothing(tmp_path: Path) -> None:
    source = rows(tmp_path / "a.jsonl", 4)
    with pytest.raises(DataError, match="all 4 sets have a prompt that is held out"):
        run(tmp_path, {"source": source, "heldout_source": source})


BINNING = partition.Config(
    {"_target_": "mpo.partition.Everything"}, "data", "data", ScoreTransformConfig(), seed=0, contrasts=False,
    needs_scores=True, needs_sides=False, score_range=[0.0, 10.0], max_skipped_share=0.1, allow_targets=[],
)  # fmt: skip


def test_scores_that_the_loss_is_not_defined_for_are_told_at_once(tmp_path: Path) -> None:
    source = {"source": rows(tmp_path / "a.jsonl", 4, scores=[1, 11])}
    with pytest.raises(DataError, match=r"set \d: score 11 is outside the 0 to 10 .*3 of 3 sets cannot be used"):
        run(tmp_path, source, binning=BINNING)


def test_marks_that_the_partition_needs_are_told_at_once(tmp_path: Path) -> None:
    given = replace(BINNING, partition={"_target_": "mpo.partition.Given"}, score_range=None)
    with pytest.raises(DataError, match=r"set \d: partition given needs accepted/rejected marks"):
        run(tmp_path, {"source": rows(tmp_path / "a.jsonl", 4)}, binning=given)


def test_warnings_are_counted_and_the_first_of_each_kind_is_kept(tmp_path: Path) -> None:
    source = rows(tmp_path / "a.jsonl", 4, responses=["a", "a"], history=[["x", "y"]])
    summary = run(tmp_path, {"source": source}, binning=BINNING)
    assert summary.warnings["train"] == {"unused_field (history)": 4, "equal_texts": 4}
    assert [problem.split(": ")[0][-2:] for problem in summary.problems] == [":1", ":1"]


def test_an_id_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    broken = rows(tmp_path / "a.jsonl", 1)
    broken.write_text(broken.read_text().replace('"id": "0"', r'"id": "\ud800"'))
    with pytest.raises(DataError, match=r"a.jsonl:1: not_unicode: id has a lone surrogate"):
        run(tmp_path, {"source": broken})
