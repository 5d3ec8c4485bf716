"""A policy that thinks first, from sampling to training rows: answers are scored, all drawn tokens are trained on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaConfig

from mpo.cache.stage import File, Nothing
from mpo.config.schema import SampleConfig, ThinkingConfig, Unwanted
from mpo.data.chat import raw_ids
from mpo.data.store import read_stored_sets, write_sets
from mpo.data.tokenizer import load_tokenizer
from mpo.data.tokens import TokenizedSets
from mpo.errors import DataError
from mpo.evaluate.base import Evidence, Samples
from mpo.evaluate.examples import Examples
from mpo.sample import Draw, Drawn, Request, Sampler, SamplingJob
from mpo.stages import prepare, sample, score
from mpo.stages.context import StageContext
from mpo.stages.nodes import prepare as prepare_node
from mpo.stages.nodes import sample as sample_node
from mpo.stages.nodes import score as score_node
from mpo.stages.summary import Summary
from mpo.types import Message, Response, ResponseSet
from tests.unit.data.conftest import build

MARKS = ThinkingConfig("<think>", "</think>")
SAID = [
    "<think>\nhm, 1. one\n</think>\n\nI am fine.",
    "<think>how are",
    "<think>\n\n</think>\n\nHello",
    "I am fine.",
]
"""Of which the second is cut off."""
PARTED = [("I am fine.", "hm, 1. one"), ("", "how are"), ("Hello", None), ("I am fine.", None)]


@dataclass(frozen=True)
class Saying(Sampler):
    """Draws the tokens of ``texts`` in turn, the first one again when there is none left; without an end of turn where
    one begins with ``cut``."""

    texts: list[str] = field(default_factory=lambda: SAID)
    cut: str = SAID[1]

    @contextmanager
    def open(self, job: SamplingJob) -> Iterator[Draw]:
        tokenizer, turn = AutoTokenizer.from_pretrained(job.policy), iter(self.texts)

        def one() -> Drawn:
            text = next(turn, self.texts[0])
            (ids,) = raw_ids(tokenizer, [text])
            return Drawn(ids, False) if text == self.cut else Drawn([*ids, job.stop_token_ids[0]], True)

        def draw(requests: Sequence[Request]) -> list[list[Drawn]]:
            return [[one() for _ in request.seeds] for request in requests]

        yield draw


def prepared(tmp_path: Path, added: bool = True, opens: bool = False) -> None:
    """A prompt, and a policy with a tokenizer, which has tokens for the marks, or a template that opens thoughts."""
    tokenizer = copy.deepcopy(build("chatml_qwen", "bytes"))
    if added:
        tokenizer.add_tokens([MARKS.start, MARKS.end])
    if opens:
        tokenizer.chat_template += "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
    tokenizer.save_pretrained(tmp_path / "policy")
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "policy")
    (tmp_path / "prompts").mkdir()
    write_sets(tmp_path / "prompts" / "train.parquet", [ResponseSet("a", (Message("user", "how are you?"),), ())])


def sampled(
    tmp_path: Path, thinking: ThinkingConfig, texts: list[str] = SAID, folder: str = "sets", **how: Any
) -> tuple[tuple[Response, ...], dict[str, Any], str]:
    """Responses, facts and warnings."""
    sampler = {"_target_": f"{__name__}.Saying", "texts": texts}
    config = sample_node.Config(
        sampler, SampleConfig(n=len(texts), max_new_tokens=60, **how), seed=0, splits=["train"], round=1, rounds=1,
        seed_rounds=0, prompts=None, allow_targets=[__name__], stop_token_ids=[], max_prompt_tokens=100,
        max_skipped_share=0.0, chat_template=None, trust_remote_code=False, thinking=thinking,
    )  # fmt: skip
    out = tmp_path / folder
    out.mkdir()
    inputs = sample_node.Inputs(tmp_path / "prompts", File(str(tmp_path / "policy")))
    sample.run(StageContext("sample", config, Nothing(), inputs, out))
    (one,) = read_stored_sets(out / "train.parquet")
    warnings = out / "warnings.txt"
    return one.responses, Summary.read(out).facts["train"], warnings.read_text() if warnings.exists() else ""


READ: list[str] = []


def words(prompt: str, response: str) -> float:
    READ.append(response)
    return float(len(response.split()))


def scored(tmp_path: Path, thinking: ThinkingConfig, folder: str) -> list[float]:
    READ.clear()
    scorer = {"_target_": "mpo.score.function.FunctionScorer", "function": f"{__name__}.words"}
    (tmp_path / folder).mkdir()
    config = score_node.Config({"words": scorer}, {"words": scorer}, [], thinking)
    inputs = score_node.Inputs(tmp_path / "sets")
    score.run(StageContext("score", config, score_node.Settings(), inputs, tmp_path / folder))
    (one,) = read_stored_sets(tmp_path / folder / "train.parquet")
    (before,) = read_stored_sets(tmp_path / "sets" / "train.parquet")
    assert [each.reasoning for each in one.responses] == [each.reasoning for each in before.responses]
    return [each.scores["words"] for each in one.responses]


@pytest.mark.parametrize(("added", "opens"), [(True, False), (False, False), (True, True), (False, True)])
def test_answers_are_scored_and_every_drawn_token_is_trained_on(tmp_path: Path, added: bool, opens: bool) -> None:
    prepared(tmp_path, added, opens)
    texts = [text.removeprefix("<think>").removeprefix("\n") for text in SAID[:3]] if opens else SAID
    sampler = [*texts[:1], *SAID[1:2], *texts[2:]]  # a template's mark and another one of the response's own are one
    responses, facts, warnings = sampled(tmp_path, MARKS, sampler)
    assert [(each.text, each.reasoning) for each in responses] == PARTED[: len(sampler)] and warnings == ""
    assert facts["thoughts"] == 2 and facts["unended_thoughts"] == facts["empty"] == facts["cut_at_limit"] == 1

    assert scored(tmp_path, MARKS, "scores") == [3, 0, 1, 3][: len(sampler)]
    assert sorted(READ) == sorted(answer for answer, _ in PARTED[: len(sampler)])

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    (one,) = TokenizedSets.load(rows(tmp_path) / "train")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    drawn = [raw_ids(tokenizer, [text])[0] + ([] if text == SAID[1] else [end]) for text in sampler]
    assert [row.tolist() for row in one.response_ids] == drawn and one.uncounted == [0] * len(drawn)


@pytest.mark.parametrize("added", [True, False])
def test_of_answers_alone_thoughts_are_read_and_no_part_of_a_loss(tmp_path: Path, added: bool) -> None:
    prepared(tmp_path, added)
    sampled(tmp_path, MARKS, [SAID[0], *SAID[2:]])
    scored(tmp_path, MARKS, "scores")
    out = rows(tmp_path, ["<think>", "</think>"])
    (one,) = TokenizedSets.load(out / "train")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    said = [tokenizer.decode(ids[first:]) for ids, first in zip(one.response_ids, one.uncounted, strict=True)]
    assert [text.removesuffix("<|im_end|>").strip() for text in said] == ["I am fine.", "Hello", "I am fine."]
    assert [first > 0 for first in one.uncounted] == ["</think>" in text for text in [SAID[0], *SAID[2:]]]
    assert Summary.read(out).fact("uncounted_tokens", "train") == sum(one.uncounted)


def test_a_set_with_a_thought_without_an_end_has_no_answer_to_train_on(tmp_path: Path) -> None:
    prepared(tmp_path)
    sampled(tmp_path, MARKS)
    scored(tmp_path, MARKS, "scores")
    with pytest.raises(
        DataError, match=r"response 1 has no token after its thought, to train on \(sample.empty=redraw"
    ):
        rows(tmp_path, ["<think>", "</think>"])


def rows(tmp_path: Path, marks: list[str] | None = None) -> Path:
    """The folder of tokenised sets; ``marks``: of thoughts that do not count."""
    out = tmp_path / ("rows" if marks is None else "answers")
    out.mkdir()
    config = prepare_node.Config(
        100, 200, max_skipped_share=0.0, flatten=None, score="words", chat_template=None, trust_remote_code=False,
        marks=marks,
    )  # fmt: skip
    inputs = prepare_node.Inputs(tmp_path / "scores", File(str(tmp_path / "policy")))
    prepare.run(StageContext("prepare", config, Nothing(), inputs, out))
    return out


def test_thoughts_are_scored_where_that_is_chosen(tmp_path: Path) -> None:
    prepared(tmp_path)
    sampled(tmp_path, MARKS)
    scored(tmp_path, ThinkingConfig("<think>", "</think>", scored=True), "scores")
    expected = ["<think>\nhm, 1. one\n</think>\n\nI am fine.", "<think>\nhow are", "Hello", "I am fine."]
    assert sorted(READ) == sorted(expected)


@pytest.mark.parametrize(("choice", "texts"), [("drop", 3), ("redraw", 4)])
def test_a_thought_without_an_end_is_an_empty_response(tmp_path: Path, choice: str, texts: int) -> None:
    prepared(tmp_path)
    responses, facts, warnings = sampled(tmp_path, MARKS, empty=Unwanted(choice))
    assert len(responses) == texts and facts["unended_thoughts"] == facts["empty"] == 0
    assert all(each.text for each in responses) and "1 empty, dr" in warnings


def test_marks_that_no_response_has_are_said(tmp_path: Path) -> None:
    prepared(tmp_path)
    _, _, warnings = sampled(tmp_path, ThinkingConfig("[THINK]", "[/THINK]"))
    assert warnings.startswith("no response sampled for train has a thought between [THINK] and [/THINK], the marks of")


def test_where_the_template_turns_thinking_off_nobody_misses_thoughts(tmp_path: Path) -> None:
    """Marks may stay where they are; a thought that comes all the same is parted."""
    prepared(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    tokenizer.chat_template += "{% if add_generation_prompt %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    tokenizer.save_pretrained(tmp_path / "policy")
    responses, facts, warnings = sampled(tmp_path, MARKS, texts=["Hello", "I am fine."])
    assert [each.text for each in responses] == ["Hello", "I am fine."] and facts["thoughts"] == 0 and warnings == ""
    responses, facts, warnings = sampled(tmp_path, MARKS, texts=["Hello", SAID[0]], folder="again")
    assert responses[1].text == "I am fine." and responses[1].reasoning and facts["thoughts"] == 1


@pytest.mark.parametrize("added", [True, False])
def test_without_marks_a_model_that_thinks_is_said_once(tmp_path: Path, added: bool) -> None:
    prepared(tmp_path, added)
    responses, facts, warnings = sampled(tmp_path, ThinkingConfig())
    assert [(each.text, each.reasoning) for each in responses] == [(text, None) for text in SAID]
    assert "unended_thoughts" not in facts
    said = "2 of 4 responses have a thought that is scored and trained on as their text: set model.thinking, or "
    assert warnings == (f"{said}template_arguments.enable_thinking=false\n" if added else "")


def test_examples_show_answers(tmp_path: Path) -> None:
    prepared(tmp_path)
    sampled(tmp_path, MARKS)
    sets = list(read_stored_sets(tmp_path / "sets" / "train.parquet"))
    found = Examples().measure(Evidence((Samples(1.0, sets, sets),), None, None, 0, lambda done, total, what: None))
    assert [(row.before, row.after) for row in found.samples] == [("I am fine.", "I am fine.")]


def test_a_template_that_writes_the_date_is_said_unless_it_is_fixed(tmp_path: Path) -> None:
    prepared(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    tokenizer.chat_template = "{{ strftime_now('%d %b') }}" + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "policy")
    assert sampled(tmp_path, ThinkingConfig(), ["Hello"])[2].startswith("the chat template writes today's date into")
    fixed = load_tokenizer(str(tmp_path / "policy"), template_arguments={"strftime_now": "26 Jul 2024"})
    fixed.save_pretrained(tmp_path / "policy")
    assert sampled(tmp_path, ThinkingConfig(), ["Hello"], folder="fixed")[2] == ""
