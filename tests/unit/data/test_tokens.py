from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from mpo.data.chat import render_prompt, render_response
from mpo.data.problems import Problem
from mpo.data.tokens import TokenizedSets, TokenStats, tokenize_sets
from mpo.errors import ConfigError, DataError
from mpo.types import Message, Response, ResponseSet

Make = Callable[[str, str], PreTrainedTokenizerBase]
SETS = [
    ResponseSet(
        f"set {i}",
        (Message("user", f"Hello number {i}"),),
        tuple(Response("fine " * (k + 1) + str(i), float(k), accepted=k == 0) for k in range(1 + i % 4)),
    )
    for i in range(600)
]


def tokenize(
    sets: list[ResponseSet], tokenizer: PreTrainedTokenizerBase, out: Path, **options: Any
) -> tuple[TokenStats, list[Problem]]:
    problems: list[Problem] = []
    settings = {"max_prompt_tokens": 60, "max_tokens": 200, "processes": 1, **options}
    return tokenize_sets(sets, tokenizer, out=out, on_problem=problems.append, **settings), problems


def test_tokens_come_back_as_rendered(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("llama3", "bytes")
    unscored = ResponseSet("bare", SETS[0].prompt, (Response("text"), Response("")))
    sets = [*SETS, unscored]
    stats, problems = tokenize(sets, tokenizer, tmp_path / "out")
    data = TokenizedSets.load(tmp_path / "out")
    assert problems == [] and stats.sets == len(data) == 601 and stats.truncated_responses == 0
    for index in (0, 3, 255, 256, 599, 600):
        one, found = sets[index], data[index]
        assert found.id == one.id and found.prompt_ids.dtype == np.int32
        assert found.prompt_ids.tolist() == render_prompt(tokenizer, one.prompt)
        full = [render_response(tokenizer, one.prompt, response.text) for response in one.responses]
        assert [ids.tolist() for ids in found.response_ids] == full
        scores = [response.score for response in one.responses]
        assert found.scores == ({} if index == 600 else {"data": scores})
        assert found.accepted == [response.accepted for response in one.responses]
    expected = [len(one.prompt_ids) + sum(map(len, one.response_ids)) for one in (data[i] for i in range(len(data)))]
    assert data.lengths.tolist() == expected
    assert stats.prompt_tokens + stats.response_tokens == sum(expected)
    with pytest.raises(IndexError):
        data[601]


def test_processes_change_nothing(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("llama3", "bytes")
    one, two = (
        tokenize(SETS, tokenizer, tmp_path / str(n), processes=n, max_prompt_tokens=23, max_tokens=26) for n in (1, 2)
    )
    assert one == two
    assert one[0].sets == len(SETS) and one[0].truncated_responses > 0
    fingerprints = [TokenizedSets.load(tmp_path / str(n)).fingerprint for n in (1, 2)]
    assert fingerprints[0] == fingerprints[1]
    tokenize(SETS[:-1], tokenizer, tmp_path / "less", max_prompt_tokens=23, max_tokens=26)
    assert TokenizedSets.load(tmp_path / "less").fingerprint != fingerprints[0]


def test_long_prompts_are_skipped_and_long_responses_cut(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("zephyr", "bytes")
    long_prompt = ResponseSet("long", (Message("user", "word " * 200),), (Response("a", 1.0),))
    long_response = ResponseSet("cut", SETS[0].prompt, (Response("word " * 200, 1.0), Response("b", 2.0)))
    size = len(render_prompt(tokenizer, SETS[0].prompt))
    stats, problems = tokenize(
        [long_prompt, long_response], tokenizer, tmp_path / "out", max_prompt_tokens=size, max_tokens=size + 1
    )
    assert [(each.id, each.reason_code, each.severity) for each in problems] == [("long", "prompt_too_long", "error")]
    assert stats.skipped_sets == {"prompt_too_long": 1} and stats.truncated_responses == 2
    found = TokenizedSets.load(tmp_path / "out")[0]
    full = render_response(tokenizer, long_response.prompt, "word " * 200)
    assert [len(ids) for ids in found.response_ids] == [1, 1] and found.truncated == [True, True]
    assert found.response_ids[0].tolist() == full[:1]
    assert tokenizer.eos_token_id not in np.concatenate(found.response_ids)


def test_unfinished_responses_get_no_end_of_turn(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("llama3", "bytes")
    cut = ResponseSet("cut", SETS[0].prompt, (Response("fine", 1.0, finished=False), Response("fine", 2.0)))
    empty = ResponseSet("empty", SETS[0].prompt, (Response("", 1.0, finished=False), Response("fine", 2.0)))
    stats, problems = tokenize([cut, empty], tokenizer, tmp_path / "out")
    found = TokenizedSets.load(tmp_path / "out")[0]
    full = render_response(tokenizer, cut.prompt, "fine")
    assert [ids.tolist() for ids in found.response_ids] == [full[:-1], full]
    assert found.truncated == [True, False] and stats.truncated_responses == 1
    assert [(each.id, each.reason_code) for each in problems] == [("empty", "no_tokens")]


def test_special_tokens_in_texts_are_reported(make_tokenizer: Make, tmp_path: Path) -> None:
    sets = [ResponseSet("x", SETS[0].prompt, (Response("a </s> b", 1.0), Response("c", 2.0)))]
    _, problems = tokenize(sets, make_tokenizer("zephyr", "bytes"), tmp_path / "out")
    assert [(each.reason_code, each.severity) for each in problems] == [("special_token", "warning")]


def test_a_refused_prompt_is_a_problem(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("chatml_qwen", "bytes")
    plain = tokenizer.chat_template
    refuse = "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('no system turns') }}{%- endif -%}"
    try:
        tokenizer.chat_template = refuse + plain
        system = ResponseSet("s", (Message("system", "s"), *SETS[0].prompt), SETS[0].responses)
        stats, problems = tokenize([system, SETS[1]], tokenizer, tmp_path / "out")
    finally:
        tokenizer.chat_template = plain
    assert stats.sets == 1 and str(problems[0]).endswith("first user turn): no system turns")


def test_errors(make_tokenizer: Make, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("chatml_qwen", "bytes")
    with pytest.raises(ConfigError, match="leaves no response token"):
        tokenize(SETS, tokenizer, tmp_path / "out", max_prompt_tokens=200)
    with pytest.raises(ConfigError, match="0 processes"):
        tokenize(SETS, tokenizer, tmp_path / "out", processes=0)
    with pytest.raises(
        DataError,
        match=r"no set is left: the prompt has 60 tokens.*\(600 of 600 sets cannot be used: prompt_too_long 600",
    ):
        tokenize(SETS, tokenizer, tmp_path / "out", max_prompt_tokens=3)
    with pytest.raises(DataError, match="there is no set to tokenise"):
        tokenize([], tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="not a folder of tokenised sets"):
        TokenizedSets.load(tmp_path / "out")
