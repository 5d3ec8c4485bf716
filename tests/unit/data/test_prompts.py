"""Prompts alone as a source: what is read, refused and counted, and where responses are needed after all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mpo.cache.stage import File
from mpo.data.problems import Problem, Reason
from mpo.data.sources import SourceSpec, read_sets, resolve_layout
from mpo.data.store import read_stored_sets
from mpo.errors import DataError
from mpo.stages import data
from mpo.stages.context import StageContext
from mpo.stages.nodes import data as node
from mpo.types import Message, ResponseSet

TOOLS = [{"type": "function", "function": {"name": "sum", "parameters": {"type": "object", "properties": {}}}}]
TURNS = [
    {"role": "user", "content": "Add 2 and 2."},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3?"},
]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, layout: str = "auto") -> tuple[list[ResponseSet], list[Problem]]:
    problems: list[Problem] = []
    return list(read_sets(SourceSpec(str(path), layout), problems.append)), problems


def test_text_turns_system_and_tools_are_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        {"prompt": "Name a colour.", "source": "mine"},
        {"id": "b", "prompt": TURNS, "system": "Be brief.", "tools": TOOLS},
    )
    assert resolve_layout(SourceSpec(str(file))) == "prompts"
    (text, turns), problems = read(file)
    assert problems == []
    assert text.prompt == (Message("user", "Name a colour."),) and text.responses == ()
    assert [turn.role for turn in turns.prompt] == ["system", "user", "assistant", "user"] and turns.id == "b"
    assert json.loads(turns.tools or "") == TOOLS


@pytest.mark.parametrize("name", ["prompt", "messages", "question", "instruction"])
def test_a_named_layout_takes_other_columns_for_the_prompt(tmp_path: Path, name: str) -> None:
    (one,), problems = read(write(tmp_path / "a.jsonl", {name: TURNS}), "prompts")
    assert len(one.prompt) == 3 and problems == []


def test_what_is_no_prompt_is_refused_and_responses_are_counted(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        {"prompt": "q", "responses": ["a", "b"], "chosen": None},
        {"prompt": TURNS[:2]},
        {"prompt": "q", "question": "r"},
        {"prompt": " "},
        {"prompt": "q"},
    )
    kept, problems = read(file, "prompts")
    assert len(kept) == 1
    assert [(problem.reason_code, problem.where.rpartition(":")[2]) for problem in problems] == [
        (Reason.UNUSED_FIELD, "1"), (Reason.BAD_ROLE_ORDER, "2"), (Reason.PROMPTS_DIFFER, "3"),
        (Reason.EMPTY_PROMPT, "4"), (Reason.DUPLICATE_ID, "5"),
    ]  # fmt: skip
    assert "data.layout=chat" in problems[1].message


def run(file: Path, out: Path, **config: Any) -> None:
    out.mkdir()
    whole = node.Config(heldout=1, max_skipped_share=0.1, **config)
    data.run(StageContext("data", whole, node.Settings(), node.Inputs(File(str(file))), out))


@pytest.mark.parametrize("layout", ["auto", "prompts"])
def test_off_policy_they_are_refused_with_what_to_do(tmp_path: Path, layout: str) -> None:
    file = write(tmp_path / "a.jsonl", *({"prompt": f"question {i}"} for i in range(5)))
    with pytest.raises(DataError, match=r"a\.jsonl: prompts alone, .*; regime=on_policy .* draws responses"):
        run(file, tmp_path / "out", layout=layout, needs_responses=True, needs_scores=True, contrasts=True)


def test_on_policy_some_are_held_out(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *({"prompt": f"question {i}"} for i in range(5)))
    run(file, tmp_path / "out")
    train, held = (list(read_stored_sets(tmp_path / "out" / f"{name}.parquet")) for name in ("train", "heldout"))
    assert (len(train), len(held)) == (4, 1) and not any(one.responses for one in train + held)
