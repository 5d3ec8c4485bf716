"""Every wrong input ends in one line and status 2 before a model is loaded or trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import CommandLine, MakeCommandLine, Outcome

Rows = list[dict[str, Any]]
MODEL_STAGES = ("sft", "train", "reference", "sample", "evaluate")


@dataclass(frozen=True)
class Mistake:
    """A wrong command and what its line must name: where it is, and what to do."""

    arguments: tuple[str, ...]
    named: tuple[str, ...]
    rows: Callable[[Rows], Rows | str | bytes] | None = None


def good_rows(count: int = 10) -> Rows:
    """Sets of three responses."""
    return [
        {
            "id": f"set{number}",
            "prompt": f"Name {number + 2} things that are blue.",
            "responses": [{"text": f"The sky, and {word} too.", "score": score} for word, score in SAID],
        }
        for number in range(count)
    ]


SAID = (("the sea", 8.0), ("a cornflower", 6.5), ("perhaps a lemon", 2.0))
Change = Callable[[dict[str, Any]], Any]


def third(change: Change) -> Callable[[Rows], Rows]:
    """The rows with the third and fourth changed, which is more than may be skipped silently."""

    def changed(rows: Rows) -> Rows:
        for row in rows[2:4]:
            change(row)
        return rows

    return changed


def every(change: Change) -> Callable[[Rows], Rows]:
    """The rows with each one changed."""

    def changed(rows: Rows) -> Rows:
        for row in rows:
            change(row)
        return rows

    return changed


def broken_line(rows: Rows) -> str:
    lines = [json.dumps(row) for row in rows]
    lines[2], lines[3] = lines[2][:-9], lines[3][1:]
    return "\n".join(lines)


def score(value: object) -> Change:
    return lambda row: row["responses"][1].update(score=value)


def equal_scores(row: dict[str, Any]) -> None:
    for response in row["responses"]:
        response["score"] = 5.0


FROM_FILE = ("model=small", "data.source=sets.jsonl")
MISTAKES = {
    "misspelt key": Mistake(("train.epoch=3",), ("train.epoch:", "did you mean 'epochs'?")),
    "misspelt key of a loss": Mistake(("loss.alhpa=3",), ("loss.alhpa:", "did you mean 'alpha'?")),
    "misspelt option": Mistake(("loss=wpmo",), ("loss:", "did you mean 'wmpo'?")),
    "wrong type": Mistake(("train.lr=fast",), ("train.lr:", "'fast'", "give a number")),
    "out of range": Mistake(("train.epochs=0",), ("train.epochs:", "a number in [1, 10000]")),
    "missing value": Mistake(("model=small",), ("data.source:", "give one")),
    "missing file": Mistake(("model=small", "data.source=set.jsonl"), ("data.source:", "did you mean 'sets.jsonl'?")),
    "empty file": Mistake(FROM_FILE, ("data.source:", "'sets.jsonl' is empty", "name a file"), lambda rows: ""),
    "broken JSON": Mistake(FROM_FILE, ("sets.jsonl:3:", "broken_json", "fix the data"), broken_line),
    "only blank lines": Mistake(FROM_FILE, ("sets.jsonl", "sets"), lambda rows: "\n\n"),
    "not text at all": Mistake(FROM_FILE, ("sets.jsonl",), lambda rows: bytes(range(256)) * 9),
    "set without scores": Mistake(
        FROM_FILE, ("sets.jsonl:3:", "score"), third(lambda row: [r.pop("score") for r in row["responses"]])
    ),
    "one response": Mistake(
        FROM_FILE,
        ("sets.jsonl:1:", "one_response", "at least two"),
        every(lambda row: row["responses"].__delitem__(slice(1, 3))),
    ),
    "equal scores": Mistake(FROM_FILE, ("sets.jsonl:1:", "equal_scores", "different scores"), every(equal_scores)),
    "NaN score": Mistake(FROM_FILE, ("sets.jsonl:3:", "nan_score", "fix the data"), third(score(float("nan")))),
    "score is a word": Mistake(FROM_FILE, ("sets.jsonl:3:", "score_not_number"), third(score("high"))),
    "response is not text": Mistake(
        FROM_FILE, ("sets.jsonl:3:", "response_not_text"), third(lambda row: row["responses"][0].update(text=7))
    ),
    "duplicate ids": Mistake(
        FROM_FILE, ("sets.jsonl:4:", "duplicate_id"), lambda rows: [*rows[:3], *rows[2:5], *rows[3:]]
    ),
    "prompts longer than the context": Mistake(
        FROM_FILE,
        ("set2", "prompt_too_long", "raise data.max_prompt_tokens"),
        third(lambda row: row.update(prompt="word " * 999)),
    ),
    "context longer than the model's": Mistake(
        ("data.max_tokens=999",), ("data.max_tokens:", "256 positions", "lower it")
    ),
    "reference needed, none given": Mistake(
        ("loss=dpo", "model.reference=none"), ("model.reference:", "DPO needs a reference", "simpo")
    ),
    "bins that do not fit": Mistake(("loss=mpo", "partition=ranks"), ("partition", "MPO")),
    "more bins than responses": Mistake(("loss=k_bin", "partition.bins=9"), ("partition.bins:", "8 responses")),
    "batch sizes that do not divide": Mistake(
        ("train.global_batch=10", "train.micro_batch=4"), ("train.global_batch:", "8 or 12", "train.micro_batch=2")
    ),
    "unknown model folder": Mistake(
        ("model.path=./nowhere", "model.scratch=null"),
        ("model.path:", "there is no folder './nowhere'", "correct the path"),
    ),
    "model folder without weights": Mistake(
        ("model.path=.", "model.scratch=null"), ("model.path:", "config.json", "save_pretrained")
    ),
    "no room on the disk": Mistake(
        (*FROM_FILE, "model.architecture.hidden_size=600000"), ("cache_dir:", "GiB are free", "larger disk")
    ),
    "cache below a file": Mistake(
        (*FROM_FILE, "cache_dir=sets.jsonl/cache"), ("cache_dir:", "sets.jsonl"), lambda rows: rows
    ),
    "scorer that is not there": Mistake(
        ("regime=on_policy", "score=function", "score.function=mpo.testbed.reward.tru_reward"), ("score", "tru_reward")
    ),
}


OFTEN = (
    *("misspelt key", "missing file", "broken JSON", "not text at all", "duplicate ids"),
    *("prompts longer than the context", "unknown model folder", "no room on the disk", "scorer that is not there"),
)
"""One of each kind; the others, which unit tests of rules and sources have too, are slow."""


def run(mistake: Mistake, mpo: CommandLine) -> Outcome:
    content = mistake.rows(good_rows()) if mistake.rows else good_rows()
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    (mpo.home / "sets.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    return mpo("logger=none", *mistake.arguments, code=None)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in MISTAKES]
)
def test_one_line_says_what_where_and_what_to_do(command_lines: MakeCommandLine, name: str) -> None:
    outcome = run(MISTAKES[name], command_lines())
    assert "Traceback" not in outcome.err + outcome.out
    assert outcome.code == 2, outcome.err
    assert len(outcome.mistakes) == 1, outcome.err
    line = outcome.err.splitlines()[-1]
    assert line == outcome.mistakes[0]
    for part in MISTAKES[name].named:
        assert part in line
    assert ";" in line, "no remedy"
    assert not [stage for stage in outcome.started if stage.rpartition("/")[2] in MODEL_STAGES]


def test_few_unusable_sets_are_skipped_and_counted(command_lines: MakeCommandLine, tmp_path: Path) -> None:
    mpo = command_lines()
    rows = good_rows(30)
    rows[4]["responses"][0]["text"] = 7
    rows[5]["responses"][1]["score"] = float("nan")
    equal_scores(rows[6])
    (mpo.home / "sets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = mpo("logger=none", *FROM_FILE, *SMALL_MODEL, "data.heldout=4", "evaluate.temperatures=[]")
    assert outcome.result["skipped"] == {"response_not_text": 1, "nan_score": 1, "equal_scores": 1}
    assert sum(outcome.result["data_facts"][f"{split}: sets"] for split in ("train", "heldout")) == 28


SMALL_MODEL = (
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=64",
    "model.architecture.num_hidden_layers=1",
    "model.architecture.num_attention_heads=2",
    "model.architecture.num_key_value_heads=2",
    "model.scratch.sft.max_steps=2",
    "train.max_steps=2",
)
