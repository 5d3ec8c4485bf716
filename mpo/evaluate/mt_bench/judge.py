"""MT-Bench's judge: a score for each answer, asked for again where there is none, kept as they come. No torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpo.endpoint import Endpoint
from mpo.errors import DataError, cut
from mpo.evaluate.asking import Asking
from mpo.evaluate.kept_answers import KeptAnswers
from mpo.evaluate.mt_bench.files import read_prompts
from mpo.evaluate.mt_bench.prompts import prompt_name, prompts_of, score_in
from mpo.evaluate.questions import Answer, Question
from mpo.score.verdicts import NoVerdict

if TYPE_CHECKING:
    from mpo.evaluate.base import Evidence
    from mpo.evaluate.mt_bench.options import Options

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
    measure: Options,
    questions: Mapping[str, Question],
    references: Mapping[str, tuple[str, ...]],
    answers: Sequence[Answer],
    evidence: Evidence,
) -> Judged:
    """Have every turn of every answer graded. What has a score is kept by what was asked, for all runs.

    Raises:
        ConfigError: the server wants another key.
        ProcessError: it cannot be asked any more.
        DataError: not one answer has a score.
    """
    prompts = prompts_of(None if measure.prompts is None else read_prompts(measure.prompts))
    asked: list[Judgment] = []
    for answer in answers:
        question, reference = questions[answer.question_id], references.get(answer.question_id, ())
        for turn in range(1, len(question.turns) + 1):
            prompt = prompts[prompt_name(bool(reference), turn)]
            messages = prompt.messages(question, answer.turns[:turn], reference[:turn])
            asked.append(Judgment(question, turn, prompt.name, messages, "", None))
    wanted = {_mark(each.messages): each.messages for each in asked}
    texts, reasons = _ask(measure, wanted, evidence)
    judgments, missing = [], Counter[str]()
    for each in asked:
        mark = _mark(each.messages)
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
    return Judged(judgments, missing)


def _ask(
    measure: Options, wanted: Mapping[str, list[dict[str, str]]], evidence: Evidence
) -> tuple[dict[str, str], dict[str, str]]:
    """The judge's answers by mark, which is all that it was asked, and for those without one the reason."""
    texts: dict[str, str] = {}
    reasons: dict[str, str] = {}
    how = {"model": measure.model, "temperature": 0.0, "max_tokens": measure.max_judge_tokens}
    with (
        Endpoint(measure.url, measure.key_variable, measure.timeout_s, measure.attempts, "measure.url") as end,
        KeptAnswers(evidence.verdicts, how) as kept,
    ):
        if kept.damaged:
            evidence.warn(f"{kept.damaged} kept answers of the judge are damaged; it is asked again")
        texts |= {mark: text for mark in wanted if (text := kept.get(mark)) is not None}
        scored = len(texts)
        asking = Asking(end, measure.concurrency)
        for _ in range(1 + measure.retries):
            left = [mark for mark in wanted if score_in(texts.get(mark, "")) is None]
            for place, found in asking([{**how, "messages": wanted[mark]} for mark in left], _said):
                mark = left[place]
                if isinstance(found, NoVerdict):
                    reasons[mark] = found.reason
                    continue
                texts[mark] = found
                if score_in(found) is not None:
                    kept.add(mark, found)
                    scored += 1
                evidence.on_progress(scored, len(wanted), "answers judged")
    return texts, reasons


def _mark(messages: list[dict[str, str]]) -> str:
    return json.dumps(messages, sort_keys=True)


def _said(answer: dict[str, Any]) -> str:
    message = answer["choices"][0]["message"]
    return str(message.get("content") or message.get("refusal") or "")
