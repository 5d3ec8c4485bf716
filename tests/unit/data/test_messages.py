"""What rows and messages carry beside texts: used, refused by name, or counted; nothing vanishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mpo.data.sources import LAYOUTS, Problem, SourceSpec, read_sets
from mpo.data.split import prompt_key
from mpo.data.store import read_stored_sets, write_sets
from mpo.types import Message, ResponseSet

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo", "days": None}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"default": None}}}]


def read(tmp_path: Path, *rows: dict[str, Any]) -> tuple[list[ResponseSet], list[Problem]]:
    path, problems = tmp_path / "rows.jsonl", list[Problem]()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_sets(SourceSpec(str(path)), problems.append)), problems


def user(content: Any = "hi", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(content: Any = "yes", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def pair(**more: Any) -> dict[str, Any]:
    return {"prompt": "hi", "chosen": "yes", "rejected": "no", **more}


ROWS = {
    "response_sets": {"prompt": "hi", "responses": ["yes", "no"], "scores": [1, 0]},
    "pairs": pair(),
    "chat": {"messages": [user(), assistant()]},
    "ultrafeedback": {"instruction": "hi", "completions": [{"response": "yes", "overall_score": 5}]},
    "ultrafeedback_armorm": {"prompt": "hi", "all_generated_responses": ["yes", "no"], "all_rm_scores": [1, 0]},
    "ultrafeedback_binarized": pair(score_chosen=2, score_rejected=1),
    "prompts": {"prompt": "hi"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_system_column_is_a_system_turn_in_every_layout(tmp_path: Path, layout: str, name: str) -> None:
    plain, said = ROWS[layout], ROWS[layout] | {name: "Be brief.", "tools": json.dumps(TOOLS)}
    sets, problems = read(tmp_path, plain, said, plain | {name: " ", "tools": []})
    assert not [problem for problem in problems if problem.reason_code == "unused_field"]
    assert sets[1].prompt == (Message("system", "Be brief."), *sets[0].prompt)
    assert sets[1].tools == json.dumps(TOOLS) and sets[0].tools is None
    assert len(sets) == 2 and problems[-1].reason_code == "duplicate_id"  # an empty column says nothing
    assert prompt_key(sets[1].prompt) == prompt_key(sets[0].prompt)


def test_system_column_and_system_turn_must_agree(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, user()]
    sets, problems = read(
        tmp_path, pair(prompt=turns, system="Be brief. "), pair(prompt=turns, system="Be kind."),
        pair(system="Be kind.", system_prompt="Be brief."),
    )  # fmt: skip
    assert [turn.role for turn in sets[0].prompt] == ["system", "user"] and len(sets) == 1
    assert [problem.message for problem in problems] == [
        "system and system turn say different things; keep one",
        "system and system_prompt say different things; keep one",
    ]


def test_calls_reasoning_and_tool_turns_are_carried_and_stored(tmp_path: Path) -> None:
    asked = assistant("", tool_calls=[CALL | {"id": "c1"}], reasoning_content="look it up")
    answered = {"role": "tool", "content": "18 C", "tool_call_id": "c1", "name": "weather"}
    rows = [
        pair(prompt=[user(), asked, answered], tools=TOOLS),
        pair(chosen=[user(), assistant(None, tool_calls=json.dumps([CALL]))], rejected=[user(), assistant("no")]),
        pair(prompt=None, chosen=[assistant("yes", thinking="hm")], question="hi"),
        {"prompt": "hi", "responses": [assistant("a", reasoning="r", score=1), {"tool_calls": [CALL], "score": 0}]},
        {"messages": [user(), assistant("a", reasoning="r", thinking="r", tool_calls=[])]},
    ]
    sets = [one for row in rows for one in read(tmp_path, row)[0]]
    call = json.dumps([CALL])
    with_id = json.dumps([{**CALL, "id": "c1"}])
    assert sets[0].prompt[1:] == (
        Message("assistant", "", "look it up", with_id), Message("tool", "18 C", None, None, "c1", "weather"),
    )  # fmt: skip
    assert [(each.text, each.reasoning, each.tool_calls) for one in sets[1:] for each in one.responses] == [
        ("", None, call), ("no", None, None), ("yes", "hm", None), ("no", None, None), ("a", "r", None),
        ("", None, call), ("a", "r", None),
    ]  # fmt: skip
    assert len({one.id for one in sets}) == 5
    write_sets(tmp_path / "sets.parquet", sets)
    assert list(read_stored_sets(tmp_path / "sets.parquet")) == sets
    again = list(read_sets(SourceSpec(str(tmp_path / "sets.parquet")), lambda problem: None))
    assert [(one.prompt, one.tools) for one in again] == [(one.prompt, one.tools) for one in sets]


def test_arguments_as_text_are_read_and_ids_tell_sets_apart(tmp_path: Path) -> None:
    text = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    odd = {"name": "weather", "arguments": "Oslo"}
    rows = [pair(chosen=[assistant("", tool_calls=[call])], rejected="no") for call in (text, odd)]
    sets, problems = read(tmp_path, *rows)
    assert [json.loads(one.responses[0].tool_calls or "")[0]["arguments"] for one in sets] == [{"city": "Oslo"}, "Oslo"]
    assert problems == [] and sets[0].id != sets[1].id


def test_what_other_formats_write_is_read_as_ours(tmp_path: Path) -> None:
    asked = assistant("", tool_calls=[CALL | {"id": 7}])
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    result = {"city": "Oslo", "wind": None}
    rows = [
        pair(prompt=[{"role": "developer", "content": "Be brief."}, user()]),
        pair(system=parts, question="hi", prompt=None, tools=" \n"),
        pair(prompt=[user(), asked, {"role": "tool", "content": result, "tool_call_id": 7}], id="called"),
    ]
    first, second, called = (read(tmp_path, row)[0][0] for row in rows)
    assert first.prompt == second.prompt == (Message("system", "Be brief."), Message("user", "hi"))
    assert first.tools is second.tools is None and first.id == second.id
    assert called.prompt[2] == Message("tool", json.dumps(result), tool_call_id="7")
    assert [read(tmp_path, row)[1] for row in rows] == [[], [], []]


def test_content_parts_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Name "}, {"type": "text", "text": "one.", "image": None}]
    (one,), problems = read(tmp_path, {"prompt": [user(parts)], "responses": [{"content": parts, "score": 1}]})
    assert one.prompt[0].content == one.responses[0].text == "Name one."
    assert {problem.reason_code for problem in problems} == {"one_response"}


REFUSED = [
    (pair(prompt=[user([{"type": "image_url", "image_url": "x"}])]), "bad_message", "'image_url'; only text"),
    (pair(prompt=[user(images=["x"])]), "bad_message", "'images'; only text"),
    (pair(chosen=[assistant(None, function_call={"name": "x"})]), "bad_message", "has no content"),
    (pair(chosen=[assistant("", function_call={"name": "x"})]), "bad_message", "'function_call'; write tool_calls"),
    (pair(chosen=[assistant("", tool_calls=[{"arguments": {}}])]), "bad_message", "names no function"),
    (pair(chosen=[assistant("", tool_calls="{")]), "bad_message", "not JSON"),
    (pair(chosen=[assistant("a", reasoning="b", thinking="c")]), "bad_message", "reasoning and thinking, which differ"),
    (pair(chosen=[assistant("a", thinking=True)]), "bad_message", "thinking is a boolean"),
    (pair(prompt=[user(tool_calls=[CALL])]), "bad_message", "but is a user turn"),
    (pair(prompt=[{"role": "human", "content": "x"}]), "bad_message", "role 'human', not one of"),
    (pair(prompt=[user({"text": "x"})]), "bad_message", "content is an object"),
    (pair(prompt=[user(tool_call_id=True)]), "bad_message", "tool_call_id is a boolean"),
    (pair(system=[{"type": "image_url"}]), "bad_message", "system[0] is of type 'image_url'; only text"),
    (pair(prompt=[user(), {"role": "tool", "content": "x"}]), "bad_role_order", "roles user, tool"),
    (pair(tools="weather"), "bad_tools", "not JSON"),
    (pair(tools=["weather"]), "bad_tools", r"tools[0] is text"),
    (pair(tools=[{"x": float("nan")}]), "bad_tools", "cannot be written as JSON"),
    (pair(tools=[{"x": "\ud800"}]), "not_unicode", "tools has a lone surrogate"),
    (pair(prompt=[user("other")], chosen=[user(), assistant()], rejected=[user(), assistant("no")]),
     "prompts_differ", "prompt and the conversation differ from turn 1 on: user 'other' and user 'hi'"),
    (pair(chosen=[user(), assistant("a"), user(), assistant()], rejected=[user(), assistant("b"), user(), assistant()]),
     "prompts_differ", "chosen and rejected differ from turn 2 on: assistant 'a' and assistant 'b'"),
    ({"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "x"}, "missing_field", "chosen is a transcript"),
    ({"prompt": "hi", "responses": [{"output": "y", "score": 2}]}, "response_not_text", "it has output, score"),
    ({"prompt": "hi", "responses": [user("a")]}, "bad_message", "role 'user', not assistant"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason", "words"), REFUSED)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, row: Any, reason: str, words: str) -> None:
    sets, problems = read(tmp_path, row)
    assert sets == [] and [problem.reason_code for problem in problems] == [reason]
    assert words in problems[0].message


COUNTED = [
    (pair(prompt=[user(weight=0)]), ["weight"]),
    (pair(chosen=[assistant(loss=False, id=3, timestamp="x")]), ["loss"]),
    (pair(prompt=[user([{"type": "text", "text": "a", "cache_control": {"x": 1}}])]), ["cache_control"]),
    ({"prompt": "hi", "responses": [{"text": "a", "rating": 1, "content": "z"}, {"text": "b", "note": None}]},
     ["rating", "content"]),
    (pair(history=[["a", "b"]], images=[], margin=0.5, source="x", metadata={"a": 1}), ["history", "margin"]),
    (pair(**{"chosen-rating": 5.0, "rejected-rating": 5.0}), ["chosen-rating", "rejected-rating"]),
    (pair(prompt="else", chosen=[user(), assistant()], rejected=[user(), assistant("no")]), ["prompt"]),
    (pair(messages=[user(), assistant("else")]), ["messages"]),
    ({"instruction": "hi", "completions": [{"response": "a", "custom_system_prompt": "s", "odd": 1}]}, ["odd"]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "fields"), COUNTED)
def test_what_is_not_used_is_counted_by_name(tmp_path: Path, row: Any, fields: list[str]) -> None:
    sets, problems = read(tmp_path, row)
    unused = [problem for problem in problems if problem.reason_code == "unused_field"]
    assert len(sets) == 1 and [problem.field for problem in unused] == fields
    assert all(problem.label == f"unused_field ({problem.field})" for problem in unused)


def test_prompts_beside_whole_conversations_that_agree_are_used(tmp_path: Path) -> None:
    sides = {"chosen": [user(), assistant()], "rejected": [user(), assistant("no")]}
    system = {"role": "system", "content": "s"}
    call = [assistant("", tool_calls=[CALL]), {"role": "tool", "content": "18 C"}]
    sets, problems = read(
        tmp_path, {"id": 1, **sides}, {"id": 2, "prompt": " hi ", **sides}, {"id": 3, "prompt": [user()], **sides},
        {"id": 4, "prompt": [system, user()], **sides},
        {"id": 5, "prompt": [user()], "chosen": [*call, assistant()], "rejected": [*call, assistant("no")]},
    )  # fmt: skip
    assert problems == []
    roles = [[turn.role for turn in one.prompt] for one in sets]
    assert roles == [["user"], ["user"], ["user"], ["system", "user"], ["user", "assistant", "tool"]]


def test_a_prompt_may_lack_the_system_turn_of_its_conversation(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    row = {"chosen": [system, user(), assistant()], "rejected": [system, user(), assistant("no")]}
    (one,), problems = read(tmp_path, {**row, "prompt": [user()]})
    assert [turn.role for turn in one.prompt] == ["system", "user"] and not problems
    none, (refused,) = read(tmp_path, {**row, "prompt": [user("another")]})
    assert not none and refused.reason_code == "prompts_differ"


def test_sets_that_differ_in_whose_reasoning_it_is_are_both_kept(tmp_path: Path) -> None:
    thought, plain = {"text": "yes", "reasoning_content": "hm"}, {"text": "yes"}
    rows = [
        {"prompt": "hi", "responses": [{**one, "score": 1}, {**other, "text": "no", "score": 0}]}
        for one, other in ((thought, plain), (plain, thought))
    ]
    sets, problems = read(tmp_path, *rows)
    assert len({one.id for one in sets}) == 2 and not problems
    sets, (again,) = read(tmp_path, rows[0], rows[0])
    assert len(sets) == 1 and again.reason_code == "duplicate_id"


def test_equal_texts_with_different_scores_are_counted(tmp_path: Path) -> None:
    texts = [{"text": text, "score": score} for text, score in (("x", 9), ("y", 9), ("x", 9), ("x \n", 1))]
    for rows, place, words in (
        ([{"prompt": "hi", "responses": texts}], ":1", "responses 0 and 3 are equal, with scores 9 and 1"),
        ([pair(), pair(chosen="a", rejected="a")], ":2", "responses 0 and 1 are equal, with scores 1 and 0"),
    ):
        sets, problems = read(tmp_path, *rows)
        found = [(problem.where[-2:], problem.reason_code, problem.message) for problem in problems]
        assert found == [(place, "equal_texts", words)] and len(sets) == len(rows)


def test_huge_and_unprintable_things_of_the_data_are_cut_and_escaped(tmp_path: Path) -> None:
    rows = [
        {"\ud800": 1, "x": 2},
        pair(prompt=[{"role": "a\x1b[31m" + "b" * 300_000, "content": "x"}]),
        pair(prompt=[user(**{"k\ud800" * 1000: 1})]),
        {str(number): 1 for number in range(10_000)},
    ]
    problems = [problem for row in rows for problem in read(tmp_path, {**pair(id=1)}, row)[1]]
    assert len(problems) == 4
    for problem in problems:
        str(problem).encode()
        assert str(problem).isprintable() and len(str(problem)) < 400 + len(str(tmp_path)) and len(problem.label) < 80
    assert r"\ud800" in str(problems[0]) and r"\x1b" in str(problems[1])
