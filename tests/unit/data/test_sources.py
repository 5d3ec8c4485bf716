from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from mpo.data.sources import Problem, SourceSpec, read_sets, resolve_layout
from mpo.data.store import copy_sets, read_stored_sets, write_sets
from mpo.errors import DataError
from mpo.types import Message, Response, ResponseSet

SHARED = Path(__file__).parents[3] / "../shared/data"
GOOD = {"id": "ok", "prompt": "hi", "responses": [{"text": "a", "score": 1}, {"text": "b", "score": 2}]}


def read(path: Path | str, **options: Any) -> tuple[list[ResponseSet], list[Problem]]:
    problems: list[Problem] = []
    return list(read_sets(SourceSpec(str(path), **options), problems.append)), problems


def write_lines(path: Path, lines: list[Any]) -> Path:
    body = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)
    return path


def good(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "text"} for role in roles]


ERRORS = [
    ("broken_json", '{"id": 1,'),
    ("broken_json", "[" * 100_000),
    ("not_an_object", "[1, 2]"),
    ("not_an_object", "null"),
    ("not_unicode", good(prompt="\ud800")),
    ("not_unicode", good(responses=["\udfff", "b"])),
    ("missing_field", {"id": "x", "responses": ["a"]}),
    ("missing_field", good(responses=None)),
    ("prompt_not_text", good(prompt=7)),
    ("empty_prompt", good(prompt="  ")),
    ("empty_prompt", good(prompt=[])),
    ("bad_message", good(prompt=[{"role": "user"}])),
    ("bad_message", good(prompt=turns("function"))),
    ("bad_role_order", good(prompt=turns("tool"))),
    ("bad_message", good(prompt=[{"role": "user", "content": None}])),
    ("bad_role_order", good(prompt=turns("user", "user"))),
    ("bad_role_order", good(prompt=turns("user", "assistant"))),
    ("bad_role_order", good(prompt=turns("user", "assistant", "system", "user"))),
    ("no_responses", good(responses=[])),
    ("no_responses", good(responses="one")),
    ("response_not_text", good(responses=[{"text": 3}, "b"])),
    ("response_not_text", good(responses=[{"score": 3}])),
    ("response_not_text", good(responses=[None, "b"])),
    ("bad_mark", good(responses=[{"text": "a", "accepted": "yes"}])),
    ("bad_mark", good(responses=[{"text": "a", "finished": 1}])),
    ("score_not_number", good(responses=[{"text": "a", "score": "high"}])),
    ("score_not_number", good(responses=[{"text": "a", "score": True}])),
    ("nan_score", good(responses=["a", "b"], scores=[1, float("nan")])),
    ("nan_score", good(responses=["a", "b"], scores=[1, float("inf")])),
    ("score_count", good(responses=["a", "b"], scores=[1])),
    ("duplicate_id", good()),
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_every_bad_row_is_reported_with_its_line(tmp_path: Path, name: str) -> None:
    lines = [GOOD, "", *(row for _, row in ERRORS), good(id="last")]
    path = write_lines(tmp_path / name, lines)
    sets, problems = read(path, layout="response_sets")
    assert [one.id for one in sets] == ["ok", "last"]
    expected = [(f"{path}:{line}", reason) for line, (reason, _) in enumerate(ERRORS, start=3)]
    assert [(problem.where, problem.reason_code) for problem in problems] == expected
    assert {problem.severity for problem in problems} == {"error"}


def test_bytes_that_are_not_utf8_are_reported_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    separator = json.dumps(good(prompt="a\u2028b"), ensure_ascii=False).encode()  # no line break for an editor
    path.write_bytes(b"\xef\xbb\xbf" + separator + b"\n\xff\xfe\n" + json.dumps(good(id="z")).encode())
    sets, problems = read(path)
    assert [one.id for one in sets] == ["ok", "z"]
    assert [(problem.where, problem.reason_code) for problem in problems] == [(f"{path}:2", "not_unicode")]


WARNINGS = [
    ("no_score", good(id="1", responses=["a", "b"]), 2),
    ("one_response", good(id="2", responses=["a"], scores=[1]), 1),
    ("equal_scores", good(id="3", responses=["a", "b"], scores=[2, 2.0]), 2),
    ("empty_response", good(id="4", responses=["", "b"], scores=[1, 2]), 2),
    ("unscored_response", good(id="5", responses=["a", "b", "c"], scores=[1, None, 3]), 2),
]


def test_legal_but_odd_sets_are_kept_with_a_warning(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [row for _, row, _ in WARNINGS])
    sets, problems = read(path)
    found = [(problem.where, problem.id, problem.reason_code, problem.severity) for problem in problems]
    assert found == [(f"{path}:{i}", str(i), reason, "warning") for i, (reason, _, _) in enumerate(WARNINGS, start=1)]
    assert [len(one.responses) for one in sets] == [kept for _, _, kept in WARNINGS]


def test_response_sets_reads_every_shape(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "prompt": turns("system", "user", "assistant", "user"), "responses": ["a", "b"], "scores": [1, 2]},
        {"prompt": "q", "responses": [{"response": "a", "score": 0.5, "model": "m", "accepted": True, "x": 9}]},
        {"prompt_id": "p", "prompt": "q", "responses": [{"text": "a", "score": 1}, {"text": "b", "score": 2}]},
        {"prompt_id": "p", "prompt": "q", "responses": [{"text": "c", "score": 1}, {"text": "d", "score": 2}]},
    ]
    sets, problems = read(write_lines(tmp_path / "rows.jsonl", [*rows, rows[2]]))
    assert sets[0].id == "7" and len(sets[0].prompt) == 4
    assert sets[0].responses == (Response("a", 1.0), Response("b", 2.0))
    assert sets[1].responses == (Response("a", 0.5, "m", True),)
    assert len({one.id for one in sets}) == 4 and sets[3].id.startswith("p-")
    assert [(each.where[-2:], each.label) for each in problems] == [
        (":2", "unused_field (x)"),
        (":2", "one_response"),
        (":5", "duplicate_id"),
    ]
    with_field = read(tmp_path / "rows.jsonl", score_field="x", layout="response_sets")[0]
    assert with_field[1].responses[0].score == 9.0


def test_marks_stand_for_scores_where_there_are_none(tmp_path: Path) -> None:
    marked = [{"text": "a", "accepted": True}, {"text": "b", "accepted": False}]
    rows = [{"prompt": "q", "responses": marked}, {"prompt": "p", "responses": [*marked, {"text": "c"}]}]
    sets, problems = read(write_lines(tmp_path / "rows.jsonl", rows))
    assert [each.score for each in sets[0].responses] == [1.0, 0.0]
    assert [each.reason_code for each in problems] == ["no_score"]  # the other set has one that says nothing


def completion(overall: Any, fine: Any, *ratings: str) -> dict[str, Any]:
    annotations = {str(index): {"Rating": rating} for index, rating in enumerate(ratings)}
    row = {"response": f"r{overall}{fine}", "model": "m", "overall_score": overall, "annotations": annotations}
    return {**row, "fine-grained_score": fine}


def test_ultrafeedback_scores(tmp_path: Path) -> None:
    completions = [
        completion(10, 1.5, "1", "2"),
        completion(10, 4.5, "4", "5"),
        completion(10, 3.0, "3", "3"),
        completion(6.5, None, "N/A", "3", "4"),
        completion(None, float("nan"), "N/A"),
    ]
    path = write_lines(tmp_path / "u.jsonl", [{"instruction": "q", "completions": completions}])
    (one,), problems = read(path)
    assert [response.score for response in one.responses] == [1.0, 10.0, 6.5]
    assert [problem.reason_code for problem in problems] == [
        "overall_ten_corrected",
        "overall_ten_unclear",
        "unscored_response",
        "unscored_response",
    ]
    (fine,), _ = read(path, score_field="fine-grained_score")
    assert [response.score for response in fine.responses] == [1.5, 4.5, 3.0, 3.5]
    with pytest.raises(DataError, match="score_field: .*'other'.*overall_score"):
        read(path, score_field="other")


def test_pairs_and_chat(tmp_path: Path) -> None:
    conversation = turns("user", "assistant")
    rows = [
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {"chosen": conversation, "rejected": [conversation[0], {"role": "assistant", "content": "no"}]},
        {"chosen": conversation, "rejected": [{"role": "user", "content": "?"}, conversation[1]]},
        {"chosen": "yes", "rejected": "no"},
    ]
    path = write_lines(tmp_path / "pairs.jsonl", rows)
    sets, problems = read(path)
    assert sets[0].responses == (Response("yes", 1.0, accepted=True), Response("no", 0.0, accepted=False))
    assert sets[1].prompt == (Message("user", "text"),)
    assert [(each.where, each.reason_code) for each in problems] == [
        (f"{path}:3", "prompts_differ"),
        (f"{path}:4", "missing_field"),
    ]
    chat = write_lines(tmp_path / "chat.jsonl", [{"messages": turns("user", "assistant")}, {"messages": turns("user")}])
    (one,), chat_problems = read(chat)
    assert one.prompt == (Message("user", "text"),) and one.responses == (Response("text"),)
    assert [each.reason_code for each in chat_problems] == ["no_score", "one_response", "bad_role_order"]


@pytest.mark.parametrize(
    ("file", "layout", "size"),
    [
        ("schemas/ultrafeedback.jsonl", "ultrafeedback", 4),
        ("schemas/ultrafeedback_armorm.jsonl", "ultrafeedback_armorm", 5),
        ("schemas/ultrafeedback_binarized.jsonl", "ultrafeedback_binarized", 2),
        ("alpaca_multipref.jsonl.gz", "response_sets", 8),
    ],
)
def test_published_shapes(file: str, layout: str, size: int) -> None:
    path = SHARED / file
    if not path.exists():
        pytest.skip(f"needs {file} of the shared data")
    assert resolve_layout(SourceSpec(str(path))) == layout
    sets, problems = read(path)
    assert {problem.reason_code for problem in problems} <= {"equal_texts"}  # a few of the last file's
    assert {len(one.responses) for one in sets} == {size}
    assert all(response.score is not None for one in sets for response in one.responses)
    if size == 2:
        assert all([response.accepted for response in one.responses] == [True, False] for one in sets)


def test_json_and_parquet_and_folders_give_row_numbers(tmp_path: Path) -> None:
    rows = [GOOD, good(id="2", prompt=""), good(id="3")]
    array = tmp_path / "rows.json"
    array.write_text(json.dumps(rows, indent=1))
    table = tmp_path / "data" / "rows.parquet"
    table.parent.mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    for source, where in [(array, f"{array}:row 2"), (table, f"{table}:row 2"), (table.parent, "[train]:row 2")]:
        sets, problems = read(source)
        assert [one.id for one in sets] == ["ok", "3"]
        assert [problem.where[-len(where) :] for problem in problems] == [where]


def test_sources_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "blank.jsonl").write_bytes(b"\n\n")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "bad.json").write_text('[{"a": 1},\n {]')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "long.json").write_text(f'[{{"score": {"9" * 5000}}}]')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() * 50)[:-20])
    (tmp_path / "data.pkl").write_bytes(b"\x80")
    write_lines(tmp_path / "other.jsonl", [{"question": "?"}])
    write_lines(tmp_path / "broken.jsonl", ["{", "{"])
    expected = {
        "missing.jsonl": "no such file",
        "empty.jsonl": "the file is empty",
        "blank.jsonl": "the file has no rows",
        "bad.parquet": "not readable as parquet",
        "bad.json": "bad.json:2: broken JSON",
        "deep.json": "deep.json: broken JSON",
        "long.json": "long.json: broken JSON",
        "cut.jsonl.gz": "cut.jsonl.gz:1: the gzip data is broken",
        "data.pkl": "'.pkl' are not read",
        "other.jsonl": "other.jsonl:1: no layout matches a row with question",
        "broken.jsonl": "broken.jsonl:1: no row is readable",
    }
    for name, message in expected.items():
        with pytest.raises(DataError, match=message.replace(".", r"\.").replace("[", r"\[")) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="unknown layout 'pair'; did you mean 'pairs'"):
        read(tmp_path / "other.jsonl", layout="pair")


def test_a_missing_split_of_a_data_set_is_a_data_error(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([GOOD]), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="cannot load split 'nope'"):
        read(tmp_path, split="nope")


def test_stored_sets_come_back_and_read_as_response_sets(tmp_path: Path) -> None:
    prompt = (Message("system", "s"), Message("user", "东京 🙂"))
    sets = [
        ResponseSet(
            str(i), prompt, (Response("a", 0.1 * i, "m", True), Response("", None if i == 0 else 2.0, finished=False))
        )
        for i in range(3000)
    ]
    path = tmp_path / "sets.parquet"
    assert write_sets(path, iter(sets)) == 3000
    assert list(read_stored_sets(path)) == sets
    chosen = [2999, 0, 5, *range(1000, 2100)]
    assert copy_sets(path, chosen, tmp_path / "some.parquet") == len(chosen)
    assert list(read_stored_sets(tmp_path / "some.parquet")) == [sets[index] for index in sorted(chosen)]
    assert copy_sets(path, [], tmp_path / "none.parquet") == 0 == len(list(read_stored_sets(tmp_path / "none.parquet")))
    again, problems = read(path)
    assert again[1:] == sets[1:] and problems[0].where == f"{path}:row 1"
    parquet.write_table(pyarrow.Table.from_pylist([{"id": "x"}]), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="not stored response sets"):
        list(read_stored_sets(tmp_path / "other.parquet"))
