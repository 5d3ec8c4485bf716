"""No field that says something of what is trained vanishes: it is used, its row refused, or the reader names it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpo.data.problems import Problem
from mpo.data.sources import SourceSpec, read_sets
from tests.unit.data.damaged_rows import at, places
from tests.unit.data.layout_rows import LAYOUTS, Row

WORD = "quetzal"
"""What the fields say: where it comes out again, the field was used."""
CALLS = [{"id": "c1", "type": "function", "function": {"name": WORD, "arguments": "{}"}}]
IN_ROW: dict[str, Any] = {
    "system": WORD,
    "system_prompt": WORD,
    "tools": [{"type": "function", "function": {"name": WORD, "parameters": {}}}],
    "history": [[WORD, "and"]],
    "input": WORD,
    "context": WORD,
    "documents": [{"text": WORD}],
    "images": [f"{WORD}.png"],
    "weight": 0.5,
    "margin": 0.25,
    "chat_template_kwargs": {"enable_thinking": False},
}
IN_MESSAGE: dict[str, Any] = {
    "name": WORD,
    "weight": 0,
    "train": False,
    "images": [f"{WORD}.png"],
    "audio": {"id": WORD},
    "function_call": {"name": WORD, "arguments": "{}"},
    "refusal": WORD,
    "prefix": True,
}
IN_ANSWER: dict[str, Any] = {
    "reasoning_content": WORD,
    "reasoning": WORD,
    "thinking": WORD,
    "tool_calls": CALLS,
    "weight": 0.5,
    "images": [f"{WORD}.png"],
}
CASES = [(layout, make) for layout, makers in LAYOUTS.items() for make in makers]


def added(row: Row, path: tuple[Any, ...], field: str, value: Any) -> Row:
    other = copy.deepcopy(row)
    at(other, path)[field] = copy.deepcopy(value)
    return other


def variants(row: Row) -> list[tuple[str, Row]]:
    """The row with one more field, in every place that may have it."""
    found = [(field, added(row, (), field, value)) for field, value in IN_ROW.items() if field not in row]
    for path in places(row):
        one = at(row, path)
        if isinstance(one, dict) and "role" in one:
            more = IN_MESSAGE | (IN_ANSWER if one["role"] == "assistant" else {"tool_calls": CALLS})
            found += [(field, added(row, path, field, value)) for field, value in more.items()]
        elif isinstance(one, dict) and ("text" in one or "response" in one):
            found += [(field, added(row, path, field, value)) for field, value in IN_ANSWER.items()]
    return found


@pytest.mark.parametrize("layout, make", CASES, ids=[make.__name__ for _, make in CASES])
def test_a_field_is_used_or_named(layout: str, make: Callable[[int], Row], tmp_path: Path) -> None:
    silent = []
    for number, (field, row) in enumerate(variants(make(0))):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(row) + "\n")
        problems: list[Problem] = []
        read = list(read_sets(SourceSpec(str(path), layout), problems.append))
        explained = " ".join(f"{problem.message} {problem.field}" for problem in problems)
        named = field in explained or field.replace("_", " ") in explained
        refused = any(problem.severity == "error" for problem in problems)
        assert refused == (not read)
        if not named and WORD not in repr(read):
            silent.append((field, row))
    assert not silent


@pytest.mark.parametrize("layout, make", CASES, ids=[make.__name__ for _, make in CASES])
def test_a_response_that_only_calls_a_tool_is_no_empty_text(
    layout: str, make: Callable[[int], Row], tmp_path: Path
) -> None:
    row = make(0)
    for path in places(row):
        one = at(row, path)
        if not isinstance(one, dict):
            continue
        key = next((key for key in ("content", "text", "response") if key in one and one.get("role") != "user"), None)
        if key is None or one.get("role") == "system":
            continue
        other = added(row, path, "tool_calls", CALLS)
        at(other, path)[key] = ""
        source = tmp_path / "one.jsonl"
        source.write_text(json.dumps(other) + "\n")
        problems: list[Problem] = []
        read = list(read_sets(SourceSpec(str(source), layout), problems.append))
        if not any("tool_calls" in problem.message for problem in problems):
            assert WORD in repr(read), other
