"""A benchmark's questions answered: turns in order, seeds of their own, greedy answers, a stop costs one batch."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo.cache.stage import File, Nothing
from mpo.config.schema import SampleConfig
from mpo.errors import DataError
from mpo.evaluate.questions import Answer, Question, read_answers
from mpo.sample.base import draw_seed
from mpo.stages import answers
from mpo.stages.context import StageContext
from mpo.stages.nodes import answers as node
from mpo.stages.summary import Summary
from tests.unit.stages.test_sample import HF, prepared

TOY = '''
import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar
from mpo.sample import Drawn, Sampler

SEEN = []


@dataclass(frozen=True)
class Toy(Sampler):
    """One word that the seed chooses; asked for the ``fails``-th batch it stops."""

    fails: int = -1
    words: int = 1
    requests_at_once: ClassVar[int] = 2

    @contextmanager
    def open(self, job):
        def draw(requests):
            if len(SEEN) == self.fails:
                raise KeyboardInterrupt
            SEEN.append([(list(one.prompt_ids), one.seeds[0]) for one in requests])
            return [[self.one(job, one.seeds[0])] for one in requests]

        yield draw

    def one(self, job, seed):
        words = [random.Random(seed).randrange(20, 100) for _ in range(self.words)]
        return Drawn([*words, job.stop_token_ids[0]], True)
'''
QUESTIONS = [
    Question("a", ("write garden",)),
    Question("b", ("write garden", "write more"), system="garden"),
    Question("c", ("garden",)),
]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "toy_answers.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    monkeypatch.delitem(sys.modules, "toy_answers", raising=False)
    return {"_target_": "toy_answers.Toy"}


def run(
    tmp_path: Path, sampler: dict[str, Any] = HF, folder: str = "out", template: str = "", **how: Any
) -> tuple[list[Answer], Path]:
    if not (tmp_path / "policy").exists():
        prepared(tmp_path, ["garden"], template)
    decoding = SampleConfig(n=1, max_new_tokens=how.pop("max_new_tokens", 4), temperature=how.pop("temperature", 0.7))
    config = node.Config(
        sampler, decoding, QUESTIONS, seeds=[0, 1], allow_targets=["toy_answers"], stop_token_ids=[],
        chat_template=None, trust_remote_code=False,
    )  # fmt: skip
    out = tmp_path / folder
    out.mkdir(exist_ok=True)
    inputs = node.Inputs[Path](File(str(tmp_path / "policy")))
    answers.run(StageContext("answers", replace(config, **how), Nothing(), inputs, out))
    return read_answers(out), out


def seen() -> list[Any]:
    return sys.modules["toy_answers"].SEEN


def test_a_turn_is_asked_with_the_answers_before_it(tmp_path: Path, toy: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    from mpo.data.chat import render_prompt

    found, out = run(tmp_path, toy)
    assert [(each.question_id, each.seed) for each in found] == [(q, s) for q in "abc" for s in (0, 1)]
    assert all(each.finished and each.temperature == 0.7 for each in found)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    asked = {seed: prompt for batch in seen() for prompt, seed in batch}
    assert len(asked) == 8
    for each in found:
        question = next(one for one in QUESTIONS if one.id == each.question_id)
        assert len(each.turns) == len(question.turns)
        for turn in range(len(question.turns)):
            prompt = asked[draw_seed(each.seed, 0, "answers", question.id, turn)]
            assert prompt == render_prompt(tokenizer, question.conversation(each.turns[:turn]))
    facts = Summary.read(out).facts["answers"]
    assert facts["responses"] == 8 and facts["cut_at_limit"] == facts["empty"] == 0
    assert not list(out.glob("*.batches.*.jsonl")) and not (out / "warnings.txt").exists()


def test_a_stop_costs_one_batch(tmp_path: Path, toy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a terminal; a shell starts what is in the background with the signal ignored.
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
    whole, _ = run(tmp_path, toy, "whole")
    seen().clear()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {**toy, "fails": 2})  # in the second turn of the second batch
    before = len(seen())
    found, _ = run(tmp_path, toy)
    assert before == 2 and found == whole and len(seen()) - before == 3


def test_greedy_answers_are_the_likeliest_tokens_and_stand_for_every_seed(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mpo.data.chat import render_prompt

    found, _ = run(tmp_path, temperature=0.0, seeds=[3, 5])
    assert [(each.question_id, each.seed) for each in found] == [(q, s) for q in "abc" for s in (3, 5)]
    assert all(one.turns == other.turns for one, other in zip(found[::2], found[1::2], strict=True))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    ids = torch.tensor([render_prompt(tokenizer, QUESTIONS[0].conversation(()))])
    for _ in range(4):
        ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=-1)
    assert found[0].turns[0] == tokenizer.decode(ids[0, -4:], skip_special_tokens=True) and not found[0].finished


def test_what_is_cut_or_empty_or_cannot_be_asked_is_counted(tmp_path: Path, toy: dict[str, Any]) -> None:
    found, out = run(tmp_path)
    cut = Summary.read(out).fact("cut_at_limit", "answers")
    assert cut == 8 and not any(each.finished for each in found)
    assert (out / "warnings.txt").read_text().startswith("of 8 turns, 8 are cut at 4 tokens")
    _, out = run(tmp_path, {**toy, "words": 0}, "empty")
    assert Summary.read(out).fact("empty", "answers") == 8
    refusing = "{% if messages | length == 4 and messages[2].content != '-' %}{{ raise_exception('no') }}{% endif %}"
    found, out = run(tmp_path / "refusing", toy, template=refusing)
    assert [each.turns[1:] for each in found if each.question_id == "b"] == [("",), ("",)]
    assert [each.finished for each in found] == [True, True, False, False, True, True]
    assert "2 could not be asked" in (out / "warnings.txt").read_text()


def test_a_question_that_the_template_refuses_is_one_line_before_anything_is_drawn(tmp_path: Path, toy: Any) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    with pytest.raises(DataError, match=r"^question b: the chat template refuses system turns.*no system; choose"):
        run(tmp_path, toy, template=refusing)
    assert seen() == []


def test_answers_must_fit_the_model_and_a_later_turn_that_does_not_is_counted(tmp_path: Path, toy: Any) -> None:
    prepared(tmp_path, ["garden"])
    file = tmp_path / "policy" / "config.json"
    positions = json.loads(file.read_text())["max_position_embeddings"]
    with pytest.raises(DataError, match=f"pass the model's {positions} positions; lower the measure's max_new_tokens"):
        run(tmp_path, toy, max_new_tokens=positions)
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": 14}))
    found, out = run(tmp_path, toy)
    assert [len(each.turns) for each in found if each.question_id == "b"] == [2, 2]
    assert [each.finished for each in found] == [True, True, False, False, True, True]
    assert Summary.read(out).fact("turns that could not be asked", "answers") == 2
