"""MT-Bench's judge: a score for each answer, asked for again where there is none, kept as they come. No torch."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpo.cache.journal import Journal, remove_journal
from mpo.data.batches import batched
from mpo.endpoint import Endpoint
from mpo.errors import DataError, cut
from mpo.evaluate.asking import Asking
from mpo.evaluate.mt_bench.files import read_prompts
from mpo.evaluate.mt_bench.prompts import prompt_name, prompts_of, score_in
from mpo.evaluate.questions import Answer, Question

if TYPE_CHECKING:
    from mpo.evaluate.base import Evidence
    from mpo.evaluate.mt_bench.measure import MTBench

JOURNAL = "scores"
NO_SCORE = "the judge's answer has no score"


@dataclass(frozen=True)
class Judgment:
    """One graded answer. ``messages``: what the judge was asked; ``text``: its answer, empty where it gave none;
    ``score``: None where that has none. ``turn``: from 1."""

    question: Question
    turn: int
    prompt: str
    messages: list[dict[str, str]]
    text: str
    score: float | None


@dataclass(frozen=True)
class Judged:
    """``missing``: why answers have no score, with how many of them."""

    judgments: list[Judgment]
    missing: Counter[str] = field(default_factory=Counter)


def judge(
    measure: MTBench,
    questions: Mapping[str, Question],
    references: Mapping[str, tuple[str, ...]],
    answers: Sequence[Answer],
    evidence: Evidence,
) -> Judged:
    """Have every turn of every answer graded. Scores are kept by what was asked, so that a stopped run goes on.

    Raises:
        ConfigError: the server wants another key.
        ProcessError: it cannot be asked any more.
        DataError: not one answer has a score.
    """
    assert evidence.output is not None
    prompts = prompts_of(None if measure.prompts is None else read_prompts(measure.prompts))
    asked: list[Judgment] = []
    for answer in answers:
        question, reference = questions[answer.question_id], references.get(answer.question_id, ())
        for turn in range(1, len(question.turns) + 1):
            prompt = prompts[prompt_name(bool(reference), turn)]
            messages = prompt.messages(question, answer.turns[:turn], reference[:turn])
            asked.append(Judgment(question, turn, prompt.name, messages, "", None))
    wanted = {_mark(measure, each.messages): each.messages for each in asked}
    texts, reasons = _ask(measure, wanted, evidence)
    judgments, missing = [], Counter[str]()
    for each in asked:
        mark = _mark(measure, each.messages)
        text = texts.get(mark, "")
        found = Judgment(each.question, each.turn, each.prompt, each.messages, text, score_in(text))
        judgments.append(found)
        if found.score is None:
            missing[NO_SCORE if text else reasons.get(mark, NO_SCORE)] += 1
    if missing.total() == len(judgments):
        why = ", ".join(f"{count} × {reason}" for reason, count in missing.items())
        last = next((each.text for each in reversed(judgments) if each.text), "")
        said = f"; it said {cut(last, 60)!r}" if last else ""
        raise DataError(f"not one of {len(judgments)} answers has a score ({why}){said}", "measure.model",
                        "take another judge")  # fmt: skip
    remove_journal(evidence.output, JOURNAL)
    return Judged(judgments, missing)


def _ask(
    measure: MTBench, wanted: Mapping[str, list[dict[str, str]]], evidence: Evidence
) -> tuple[dict[str, str], dict[str, str]]:
    """The judge's answers by mark, and for those without one the reason."""
    assert evidence.output is not None
    texts: dict[str, str] = {}
    reasons: dict[str, str] = {}
    with (
        Endpoint(measure.url, measure.key_variable, measure.timeout_s, measure.attempts, "measure.url") as end,
        Journal(evidence.output, JOURNAL) as journal,
    ):
        if journal.damaged:
            evidence.warn(f"{journal.damaged} scores of an earlier attempt are damaged; the judge is asked again")
        texts.update({row["mark"]: row["text"] for row in journal.kept.values() if row["mark"] in wanted})
        number = max(journal.kept, default=-1) + 1
        asking = Asking(end, measure.concurrency)
        for _ in range(1 + measure.retries):
            left = [mark for mark in wanted if score_in(texts.get(mark, "")) is None]
            for part in batched(left, measure.concurrency):
                before = Counter(asking.missing)
                found = asking([_body(measure, wanted[mark]) for mark in part], _said)
                why = (asking.missing - before).elements()
                for mark, text in zip(part, found, strict=True):
                    if text is None:
                        reasons[mark] = next(why)
                        continue
                    texts[mark] = text
                    if score_in(text) is not None:
                        journal.add(number, {"mark": mark, "text": text})
                        number += 1
                done = sum(score_in(text) is not None for text in texts.values())
                evidence.on_progress(done, len(wanted), "answers judged")
    return texts, reasons


def _body(measure: MTBench, messages: list[dict[str, str]]) -> dict[str, Any]:
    return {"model": measure.model, "temperature": 0.0, "max_tokens": measure.max_judge_tokens, "messages": messages}


def _mark(measure: MTBench, messages: list[dict[str, str]]) -> str:
    return hashlib.sha256(json.dumps(_body(measure, messages), sort_keys=True).encode()).hexdigest()


def _said(answer: dict[str, Any]) -> str:
    message = answer["choices"][0]["message"]
    return str(message.get("content") or message.get("refusal") or "")
