"""Drawn tokens parted into thought and answer: marks of one token or of several, opened by the template or not."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
from transformers import PreTrainedTokenizerBase

from mpo.config.schema import ThinkingConfig
from mpo.config.thinking import check_thinking
from mpo.data.chat import encode, prompt_text, raw_ids, stop_ids
from mpo.data.thoughts import Parted, Thoughts
from mpo.errors import ConfigError
from mpo.sample.base import Drawn
from mpo.sample.texts import Texts
from mpo.types import Message
from tests.unit.data.conftest import build

MARKS = ThinkingConfig("<think>", "</think>")
ENDED, OPEN = "hm, 1. one\n", "hm, 1. two"
KINDS = ("an added token", "a special token", "several tokens")


def tokenizer_of(kind: str, pieces: str = "bytes") -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(build("chatml_qwen", pieces))
    if kind != "several tokens":
        tokenizer.add_tokens([MARKS.start, MARKS.end], special_tokens=kind == "a special token")
    return tokenizer


def prompt(tokenizer: PreTrainedTokenizerBase, generation: str = "") -> list[int]:
    """The prompt's ids, where the template writes ``generation`` at its end; its text speaks of a mark."""
    return encode(tokenizer, [prompt_text(tokenizer, [Message("user", "what is <think>")]) + generation])[0]


def drawn(tokenizer: PreTrainedTokenizerBase, text: str, finished: bool = True) -> Drawn:
    ids = raw_ids(tokenizer, [text])[0]
    return Drawn([*ids, stop_ids(tokenizer)[0]] if finished else ids, finished)


@pytest.mark.parametrize("pieces", ["bytes", "words"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("generation", "text", "expected"),
    [
        ("", f"<think>\n{ENDED}</think>\n\nI am fine.", Parted("I am fine.", ENDED.strip())),
        ("<think>\n", f"{ENDED}</think>\n\nI am fine.", Parted("I am fine.", ENDED.strip())),
        ("<think>", f"<think>\n{ENDED}</think>I am fine.", Parted("I am fine.", ENDED.strip())),  # opened twice
        ("", f"{ENDED}</think>fine", Parted("fine", ENDED.strip())),  # opened by nobody
        ("", f"<think>{OPEN}", Parted("", OPEN, ended=False)),
        ("<think>\n", OPEN, Parted("", OPEN, ended=False)),
        ("", "<think>\n\n</think>\n\nfine", Parted("fine")),
        ("<think>\n\n</think>\n\n", "I am fine.", Parted("I am fine.")),  # thinking is off
        ("", "I am fine.", Parted("I am fine.")),
        ("", f"<think>{ENDED}</think>", Parted("", ENDED.strip())),
    ],
)
def test_a_response_is_parted(pieces: str, kind: str, generation: str, text: str, expected: Parted) -> None:
    tokenizer = tokenizer_of(kind, pieces)
    (ids,) = raw_ids(tokenizer, [text])
    thoughts, before = Thoughts(tokenizer, "<think>", "</think>"), prompt(tokenizer, generation)
    assert thoughts.parted(ids, before) == expected
    thought, answer = (tokenizer.decode(part, skip_special_tokens=False) for part in halves(thoughts, ids, before))
    if expected == Parted(expected.answer) and "</think>" not in text:
        assert not thought
    elif expected.ended:
        assert thought.rstrip().endswith("</think>") and "</think>" not in answer
        assert answer.split() == expected.answer.split() or pieces == "words"  # whose decoder drops the first blank
        assert "".join(answer.split()) == "".join(expected.answer.split())
    else:
        assert not answer


def halves(thoughts: Thoughts, ids: list[int], before: list[int]) -> tuple[list[int], list[int]]:
    """Tokens up to the end of the thought, and those after it."""
    number = thoughts.tokens(ids, before)
    return ids[:number], ids[number:]


def test_a_mark_of_several_tokens_may_share_them_with_the_text_beside_it() -> None:
    tokenizer = tokenizer_of("several tokens")
    (ids,) = raw_ids(tokenizer, ["one. how? two  three"])
    assert tokenizer.convert_tokens_to_ids("Ġtwo") in ids
    assert Thoughts(tokenizer, "one.", "two").parted(ids, prompt(tokenizer)) == Parted("three", "how?")
    letters = tokenizer.convert_tokens_to_ids(list("one.xtwoy"))  # as no encoding would have it
    assert Thoughts(tokenizer, "one.", "two").parted(letters, prompt(tokenizer)) == Parted("y", "x")


def test_the_letters_of_a_mark_that_is_a_token_end_nothing() -> None:
    tokenizer = tokenizer_of("an added token")
    letters = tokenizer.convert_tokens_to_ids(list("</think>"))
    (end,) = raw_ids(tokenizer, [MARKS.end or ""])[0]
    ids = [*raw_ids(tokenizer, ["<think>one"])[0], *letters, end, *letters]
    assert Thoughts(tokenizer, "<think>", "</think>").parted(ids, prompt(tokenizer)) == Parted(
        "</think>", "one</think>"
    )


def counted(tokenizer: PreTrainedTokenizerBase, thinking: ThinkingConfig, each: Sequence[Drawn]) -> Texts:
    texts = Texts(tokenizer, thinking)
    for one, response in zip(each, texts.responses_of(each, prompt(tokenizer)), strict=True):
        assert response == texts.response(one, prompt(tokenizer))
        assert response.token_ids == tuple(one.token_ids)
    return texts


def test_thoughts_without_an_end_are_counted_and_are_empty_answers() -> None:
    tokenizer = tokenizer_of("a special token")
    said = ["<think>a</think>b", "<think>a", "<think>a</think>", "<think>c</think>b", "<think>c</think>b", "b"]
    given = [drawn(tokenizer, text, finished=text[-2:] != "a") for text in said]
    texts = counted(tokenizer, MARKS, given)
    assert texts.facts == {
        "responses": 6, "tokens": sum(len(one.token_ids) for one in given),
        "with_special_tokens": 0, "cut_at_limit": 0, "empty": 2, "equal_texts": 2,
        "thoughts": 5, "unended_thoughts": 1, "mean_characters": 4 / 6,
    }  # fmt: skip
    assert texts.unparted == 0


@pytest.mark.parametrize(("kind", "unparted"), [("an added token", 2), ("a special token", 2), ("several tokens", 0)])
def test_without_marks_a_response_is_one_text(kind: str, unparted: int) -> None:
    tokenizer = tokenizer_of(kind)
    each = [drawn(tokenizer, text) for text in ("<think>a</think>b", "a</think>b", "b")]
    texts = counted(tokenizer, ThinkingConfig(), each)
    assert texts.unparted == unparted and "thoughts" not in texts.facts
    said = "ab" if kind == "a special token" else "a</think>b"
    assert texts.response(each[1], prompt(tokenizer)).text == said
    assert texts.lost.total() == (2 if kind == "a special token" else 0)


def test_a_mark_that_the_tokenizer_cannot_write_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0, "</think>": 1}, unk_token="?"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    with pytest.raises(ConfigError, match="^model.thinking.start: the tokenizer has no tokens for '<think>'"):
        Thoughts(tokenizer, "<think>", "</think>")


@pytest.mark.parametrize(
    ("thinking", "scores", "said"),
    [
        (ThinkingConfig("<think>"), True, "model.thinking.end: has no value, but another key of model.thinking has"),
        (ThinkingConfig(end="</think>"), True, "model.thinking.start: has no value"),
        (ThinkingConfig(scored=True), True, "model.thinking.start: has no value"),
        (ThinkingConfig("<think>\n", "</think>"), True, "model.thinking.start: '<think> ' is empty or has white space"),
        (ThinkingConfig("", "</think>"), True, "model.thinking.start: '' is empty"),
        (ThinkingConfig("<think>", "<think>"), True, "model.thinking.end: '<think>' begins a thought too"),
        (ThinkingConfig("<t>", "</t>", scored=True), False, "model.thinking.scored: the run reads scores"),
    ],
)
def test_marks_that_part_nothing_are_refused(thinking: ThinkingConfig, scores: bool, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_thinking(thinking, scores)
    assert str(caught.value).startswith(said)


def test_marks_and_none_are_fine() -> None:
    check_thinking(ThinkingConfig(), False)
    check_thinking(MARKS, False)
