"""MT-Bench (arXiv 2306.05685): a judge grades answers to 80 questions of two turns from 1 to 10. No torch.

What FastChat's llm_judge does for single answers, without that package, whose questions and prompts are no part of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mpo.cache.artifacts import write_json
from mpo.endpoint import REQUEST_OPTIONS, check_key
from mpo.evaluate.base import START, Evidence
from mpo.evaluate.benchmark import Benchmark
from mpo.evaluate.mt_bench.files import (
    read_prompts,
    read_questions,
    read_references,
    write_judgments,
    write_model_answers,
)
from mpo.evaluate.mt_bench.judge import Judged, Judgment, judge
from mpo.evaluate.mt_bench.options import Options
from mpo.evaluate.mt_bench.prompts import OWN, prompts_of
from mpo.evaluate.questions import Answer, Decoding, Question, decodings, question_keys
from mpo.evaluate.records import Baseline, Estimate, Findings, PromptValues

if TYPE_CHECKING:
    from mpo.evaluate.estimates import Mean

RECORD_FILE = "mt_bench.json"
SPLIT, METRIC = "benchmark", "mt_bench"
UNIT = "of 10"
SAMPLED = 0.7
NO_SCORE = -1
"""FastChat's mark of an answer without a score."""


@dataclass(frozen=True)
class MTBench(Options, Benchmark):
    """Mean score over both turns, by turn, and by category."""

    files: ClassVar[frozenset[str]] = frozenset({"question_file", "references", "prompts"})
    change_nothing: ClassVar[frozenset[str]] = REQUEST_OPTIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.decodings()

    def check(self) -> None:
        """See :meth:`Measure.check`."""
        read_references(self.references, self.questions())
        prompts_of(None if self.prompts is None else read_prompts(self.prompts))
        check_key("measure", self.url, self.key_variable)

    def questions(self) -> list[Question]:
        """See :meth:`Benchmark.questions`."""
        return read_questions(self.question_file)

    def decodings(self) -> list[Decoding]:
        """See :meth:`Benchmark.decodings`; every question has a temperature of its own."""
        return decodings([SAMPLED], self.top_p, self.max_new_tokens, self.seeds, "measure")

    def measure(self, evidence: Evidence) -> Findings:
        """See :meth:`Measure.measure`; raises as :func:`mpo.evaluate.mt_bench.judge.judge`."""
        assert evidence.output is not None
        questions = {one.id: one for one in self.questions()}
        references = read_references(self.references, list(questions.values()))
        policies = {self.name: evidence.answers}
        if self.against_start:
            policies[f"{self.name}_start"] = evidence.start_answers
        for name, answers in policies.items():
            write_model_answers(evidence.output, name, answers)
        every = [answer for answers in policies.values() for answer in answers]
        judged = judge(self, questions, references, every, evidence)
        by_policy = _by_policy(judged, questions, policies)
        rows = [_row(self, name, each) for name, judgments in by_policy.items() for each in judgments]
        write_judgments(evidence.output, self._file_name, rows)
        missing = judged.missing.total()
        record = {
            "judge": self.model,
            "prompts": f"the project's own, {OWN.rstrip('-')}" if self.prompts is None else Path(self.prompts).name,
            "questions": len(questions),
            "judgments": len(judged.judgments),
            "without score": dict(judged.missing),
            "temperatures": {one.id: one.temperature for one in questions.values()},
        }
        write_json(evidence.output / RECORD_FILE, record)
        if missing:
            why = ", ".join(f"{count} × {reason}" for reason, count in judged.missing.items())
            evidence.warn(f"{missing} of {len(judged.judgments)} answers have no score and are left out ({why})")
        start = by_policy.get(f"{self.name}_start")
        return _findings(self, by_policy[self.name], start, question_keys(list(questions.values())))

    @property
    def _file_name(self) -> str:
        return self.model.replace("/", "_")


def _by_policy(
    judged: Judged, questions: dict[str, Question], policies: dict[str, tuple[Answer, ...]]
) -> dict[str, list[Judgment]]:
    """Judgments in the order of the answers, parted again."""
    found, at = {}, 0
    for name, answers in policies.items():
        count = sum(len(questions[each.question_id].turns) for each in answers)
        found[name] = judged.judgments[at : at + count]
        at += count
    return found


def _row(measure: MTBench, policy: str, each: Judgment) -> dict[str, object]:
    return {
        "question_id": each.question.id,
        "model": policy,
        "judge": [measure.model, each.prompt],
        "user_prompt": each.messages[-1]["content"],
        "judgment": each.text,
        "score": NO_SCORE if each.score is None else each.score,
        "turn": each.turn,
    }


def _findings(
    measure: MTBench, judgments: Sequence[Judgment], start: Sequence[Judgment] | None, keys: Mapping[str, str]
) -> Findings:
    """``keys``: what each question is known by in every run, by its id."""
    from mpo.evaluate.estimates import share_of_pairs  # here: it leads to scipy

    def mean(of: Iterable[Judgment]) -> tuple[Mean, dict[str, list[float]]]:
        """Over all scores; the error over questions, whose turns belong together. The scores by question."""
        scores: dict[str, list[float]] = defaultdict(list)
        for each in of:
            if each.score is not None:
                scores[each.question.id].append(each.score)
        return share_of_pairs(list(map(sum, scores.values())), list(map(len, scores.values()))), scores

    found = Findings()

    def add(metric: str, chosen: Callable[[Judgment], bool]) -> None:
        whole, scores = mean(filter(chosen, judgments))
        baselines: tuple[Baseline, ...] = ()
        if start is not None:
            base, _ = mean(filter(chosen, start))
            baselines = (Baseline(START, base.value, base.standard_error),)
        estimate = Estimate(
            metric, whole.value, whole.standard_error, whole.count, UNIT, SPLIT, judge=Path(measure.model).name,
            baselines=baselines,
        )  # fmt: skip
        found.estimates.append(estimate)
        values = [sum(each) / len(each) for each in scores.values()]
        found.by_prompt.append(PromptValues.of(estimate, [keys[name] for name in scores], values))

    add(METRIC, lambda each: True)
    for turn in sorted({each.turn for each in judgments}):
        add(f"{METRIC}/turn_{turn}", lambda each, turn=turn: each.turn == turn)  # type: ignore[misc]
    for category in dict.fromkeys(each.question.category for each in judgments):
        if category:
            add(f"{METRIC}/{category}", lambda each, of=category: each.question.category == of)  # type: ignore[misc]
    if missing := sum(each.score is None for each in judgments):
        found.estimates.append(Estimate(f"{METRIC}/without_score", missing, None, len(judgments), "answers", SPLIT,
                                        judge=Path(measure.model).name))  # fmt: skip
    return found
