"""Stored sets are data for others: ``datasets`` reads them, and so does a run, by the name of a score."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from mpo.data.problems import Problem
from mpo.data.sources import SourceSpec, read_sets
from mpo.data.store import read_stored_sets, write_sets
from mpo.types import Message, Response, ResponseSet

SETS = [
    ResponseSet(
        str(number),
        (Message("system", "be brief"), Message("user", f"question {number}")),
        tuple(
            Response(
                f"answer {k}",
                finished=k > 0,
                reasoning="a thought" if k else None,
                token_ids=(5, 6, k),
                token_logps=(-0.5, -0.25, -1.0),
                scores={"armorm": float(k), "true_reward": 10.0 - number},
            )
            for k in range(3)
        ),
    )
    for number in range(5)
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.parquet"
    write_sets(path, SETS)
    return path


def test_they_are_read_as_they_were(file: Path) -> None:
    assert list(read_stored_sets(file)) == SETS


def test_datasets_reads_every_field(file: Path) -> None:
    rows = list(datasets.load_dataset("parquet", data_files=str(file), split="train"))
    assert [row["id"] for row in rows] == [one.id for one in SETS]
    (first, *_) = rows[0]["responses"]
    assert (first["text"], first["token_ids"], first["finished"]) == ("answer 0", [5, 6, 0], False)
    assert first["scores"] == [{"name": "armorm", "score": 0.0}, {"name": "true_reward", "score": 10.0}]


@pytest.mark.parametrize("source", ["a file", "owner/name"])
def test_a_run_trains_on_the_score_of_one_scorer(file: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[Problem] = []
    pushed = datasets.load_dataset("parquet", data_files=str(file), split="train")
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: pushed)
    spec = SourceSpec(str(file) if source == "a file" else source, "response_sets", score_field="armorm")
    found = list(read_sets(spec, problems.append))
    assert not problems
    assert [[each.score for each in one.responses] for one in found] == [[0.0, 1.0, 2.0]] * len(SETS)
    assert [one.prompt for one in found] == [one.prompt for one in SETS]


@pytest.mark.parametrize("scores", ["high", [1.0, 2.0], [{"name": "armorm"}], 3])
def test_scores_that_name_nothing_are_refused(tmp_path: Path, scores: object) -> None:
    path = tmp_path / "sets.jsonl"
    responses = [{"text": "a", "scores": scores}, {"text": "b", "scores": {"armorm": 1}}]
    path.write_text(json.dumps({"prompt": "p", "responses": responses}) + "\n")
    problems: list[Problem] = []
    assert not list(read_sets(SourceSpec(str(path), "response_sets", score_field="armorm"), problems.append))
    assert "responses[0].scores is" in str(problems[0]) and str(problems[0]).startswith(f"{path}:1: score_not_number")
