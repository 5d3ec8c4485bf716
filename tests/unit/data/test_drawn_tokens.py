"""Responses with the tokens that a sampler drew: stored with them, and trained on as drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from transformers import PreTrainedTokenizerBase

from mpo.data.chat import render_prompt, render_response, stop_ids
from mpo.data.problems import Problem
from mpo.data.sources import SourceSpec, read_sets
from mpo.data.store import FORMAT, SCHEMA, copy_sets, read_stored_sets, stored_vocabulary, write_sets
from mpo.data.tokenizer import vocabulary_digest
from mpo.data.tokens import TokenizedSets, TokenStats, tokenize_sets
from mpo.errors import DataError
from mpo.types import Message, Response, ResponseSet

Make = Callable[[str, str], PreTrainedTokenizerBase]
PROMPT = (Message("user", "Hello there"),)


def letters(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """``text`` a token a letter, as no tokenizer would encode it."""
    ids = tuple(tokenizer.convert_tokens_to_ids(list(text)))
    assert tokenizer.decode(ids) == text and tokenizer(text, add_special_tokens=False)["input_ids"] != list(ids)
    return ids


def tokenize(
    sets: list[ResponseSet], tokenizer: PreTrainedTokenizerBase, out: Path, **options: Any
) -> tuple[TokenStats, list[Problem]]:
    problems: list[Problem] = []
    settings = {"max_prompt_tokens": 60, "max_tokens": 200, "processes": 1, **options}
    return tokenize_sets(sets, tokenizer, out=out, on_problem=problems.append, **settings), problems


def test_drawn_ids_that_no_encoding_gives_are_kept_beside_texts_that_are_rendered(
    make_tokenizer: Make, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer("llama3", "bytes")
    end = stop_ids(tokenizer)[0]  # the tokenizer's EOS, which the template would not have written
    ids = letters(tokenizer, "Hello")
    responses = (
        Response("Hello", 1.0, token_ids=(*ids, end)),
        Response("Hello", 2.0),
        Response("Hello", 3.0, finished=False, token_ids=ids),
        Response("", 4.0, token_ids=(end,)),
        Response("fine", 5.0),
    )
    stats, problems = tokenize([ResponseSet("a", PROMPT, responses)], tokenizer, tmp_path / "out")
    found = TokenizedSets.load(tmp_path / "out")[0]
    hello, fine = (render_response(tokenizer, PROMPT, text) for text in ("Hello", "fine"))
    assert [one.tolist() for one in found.response_ids] == [[*ids, end], hello, list(ids), [end], fine]
    assert hello != [*ids, end] and problems == []
    assert found.truncated == [False, False, True, False, False] and stats.truncated_responses == 1
    assert found.scores == {"data": [1.0, 2.0, 3.0, 4.0, 5.0]}


def test_drawn_ids_are_cut_where_others_are(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("zephyr", "bytes")
    room = 4
    limits = {
        "max_prompt_tokens": len(render_prompt(tokenizer, PROMPT)),
        "max_tokens": len(render_prompt(tokenizer, PROMPT)) + room,
    }
    ids, end = letters(tokenizer, "Hello"), stop_ids(tokenizer)[0]
    responses = (
        Response("Hello", 1.0, token_ids=(*ids, end)),
        Response("Hel", 2.0, token_ids=(*ids[:3], end)),
        Response("Hell", 3.0, finished=False, token_ids=ids[:4]),
    )
    stats, _ = tokenize([ResponseSet("a", PROMPT, responses)], tokenizer, tmp_path / "out", **limits)
    found = TokenizedSets.load(tmp_path / "out")[0]
    assert [one.tolist() for one in found.response_ids] == [list(ids[:4]), [*ids[:3], end], list(ids[:4])]
    assert found.truncated == [True, False, True] and stats.truncated_responses == 2


def test_a_response_without_a_token_cannot_be_trained_on_and_special_tokens_inside_are_said(
    make_tokenizer: Make, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer("llama3", "bytes")
    bos, end = tokenizer.bos_token_id, stop_ids(tokenizer)[0]
    ids = letters(tokenizer, "Hello")
    sets = [
        ResponseSet("empty", PROMPT, (Response("", finished=False, token_ids=()), Response("fine"))),
        ResponseSet("inside", PROMPT, (Response("Hello", token_ids=(*ids, bos, end)),)),
        ResponseSet("ends", PROMPT, (Response("Hello", token_ids=(*ids, end)),)),
    ]
    _, problems = tokenize(sets, tokenizer, tmp_path / "out")
    assert [(each.id, each.reason_code) for each in problems] == [("empty", "no_tokens"), ("inside", "special_token")]
    assert [one.id for one in map(TokenizedSets.load(tmp_path / "out").__getitem__, range(2))] == ["inside", "ends"]


def test_the_template_is_not_asked_about_a_response_that_was_drawn(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("chatml_qwen", "bytes")
    plain = tokenizer.chat_template
    refuse = "{%- if 'Hello' in messages[-1]['content'] -%}{{ raise_exception('no greetings') }}{%- endif -%}"
    ids, end = letters(tokenizer, "Hello"), stop_ids(tokenizer)[0]
    prompt = (Message("user", "Speak"),)
    drawn = ResponseSet("drawn", prompt, (Response("Hello", token_ids=(*ids, end)), Response("fine")))
    text = ResponseSet("text", prompt, (Response("Hello"), Response("fine")))
    try:
        tokenizer.chat_template = refuse + plain
        _, problems = tokenize([drawn, text], tokenizer, tmp_path / "out")
    finally:
        tokenizer.chat_template = plain
    assert [(each.id, each.reason_code) for each in problems] == [("text", "template_refused")]
    assert TokenizedSets.load(tmp_path / "out")[0].response_ids[0].tolist() == [*ids, end]


def test_processes_change_nothing(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("llama3", "bytes")
    ids, end = letters(tokenizer, "Hello"), stop_ids(tokenizer)[0]
    drawn, text = Response("Hello", 1.0, token_ids=(*ids, end)), Response("fine", 2.0)
    sets = [ResponseSet(str(i), PROMPT, (drawn, text) if i % 3 else (text, drawn)) for i in range(600)]
    results = [tokenize(sets, tokenizer, tmp_path / str(n), processes=n) for n in (1, 2)]
    one, two = (TokenizedSets.load(tmp_path / str(n)) for n in (1, 2))
    assert results[0] == results[1] and one.fingerprint == two.fingerprint
    assert two[599].response_ids[0].tolist() == [*ids, end] == two[300].response_ids[1].tolist()


def test_drawn_tokens_come_back_from_the_disk_with_their_vocabulary(tmp_path: Path) -> None:
    logps = tuple(float(value) for value in np.float32([-0.1, -12.75, 0.0]))
    drawn = (
        Response("a", 0.5, token_ids=(5, 2**31 - 1, 0), token_logps=logps),
        Response("", token_ids=(), token_logps=(), finished=False),
        Response("b", token_ids=(7,)),
        Response("c", model="m"),
    )
    sets = [ResponseSet(str(i), PROMPT, drawn[i % 2 :]) for i in range(1100)]
    write_sets(tmp_path / "sets.parquet", sets, "digest")
    assert list(read_stored_sets(tmp_path / "sets.parquet")) == sets
    copy_sets(tmp_path / "sets.parquet", [1099, 3], tmp_path / "some.parquet")
    assert list(read_stored_sets(tmp_path / "some.parquet")) == [sets[3], sets[1099]]
    assert stored_vocabulary(tmp_path / "some.parquet") == "digest" == stored_vocabulary(tmp_path / "sets.parquet")
    write_sets(tmp_path / "plain.parquet", sets)
    assert stored_vocabulary(tmp_path / "plain.parquet") is None
    problems: list[Problem] = []
    (read, *_) = read_sets(SourceSpec(str(tmp_path / "sets.parquet")), problems.append)
    assert read.responses[0] == Response("a", 0.5)  # a source of one's own: whose ids these are nobody knows
    assert not [each for each in problems if each.field.startswith("token")]


@pytest.mark.parametrize("metadata", [None, {"mpo_format": "1"}, {"mpo_format": "99"}])
def test_a_file_of_another_format_is_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "sets.parquet"
    parquet.write_table(SCHEMA.with_metadata(metadata).empty_table(), path)
    found = "99" if metadata and metadata["mpo_format"] == "99" else "1"
    for read in (lambda: list(read_stored_sets(path)), lambda: stored_vocabulary(path),
                 lambda: copy_sets(path, [], tmp_path / "copy.parquet")):  # fmt: skip
        with pytest.raises(DataError) as caught:
            read()
        remedy = "run the stage that writes it again"
        assert str(caught.value) == f"{path}: response sets in format {found}, not {FORMAT}; {remedy}"
    assert not (tmp_path / "copy.parquet").exists()


def test_a_file_from_before_formats_is_refused_in_the_same_way(tmp_path: Path) -> None:
    response = pyarrow.struct([("text", pyarrow.string()), ("finished", pyarrow.bool_())])
    columns = {**{name: SCHEMA.field(name).type for name in SCHEMA.names}, "responses": pyarrow.list_(response)}
    parquet.write_table(pyarrow.schema(list(columns.items())).empty_table(), tmp_path / "sets.parquet")
    with pytest.raises(DataError, match="response sets in format 1, not 3; run the stage that writes it again"):
        list(read_stored_sets(tmp_path / "sets.parquet"))


def test_vocabularies_are_told_apart(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("llama3", "bytes")
    digest = vocabulary_digest(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert vocabulary_digest(again) == digest
    again.chat_template = "another"
    assert vocabulary_digest(again) == digest
    again.add_tokens(["brandnew"])
    assert vocabulary_digest(again) != digest
    others = {vocabulary_digest(make_tokenizer(*which)) for which in (("zephyr", "bytes"), ("zephyr", "words"))}
    assert len({digest, *others}) == 3


def test_responses_differ_by_their_tokens_too() -> None:
    assert Response("a", token_ids=(1, 2)) != Response("a", token_ids=(3,)) != Response("a")
    assert replace(Response("a", token_ids=(1, 2)), score=1.0).token_ids == (1, 2)
