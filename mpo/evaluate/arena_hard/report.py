"""From Arena-Hard's judgments to estimates. No torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpo.errors import DataError
from mpo.evaluate.arena_hard.files import Judgment, is_whole
from mpo.evaluate.arena_hard.scores import known, score_of_2024, score_of_2025
from mpo.evaluate.questions import Question, question_keys
from mpo.evaluate.records import Baseline, Estimate, PromptValues

DEFINITIONS = {"win_rate_of_2024": score_of_2024, "mean_score_of_2025": score_of_2025}
"""The tool's two scores by metric."""


@dataclass
class Report:
    """Estimates, the values behind them by prompt, each score with its interval, and what is missing.

    Attributes:
        asked: questions, each for every seed and temperature.
        judged: those with a judgment; ``whole``: of which both games have a verdict.
        without: games of them without one.
        strange: labels that are no verdicts.
    """

    estimates: list[Estimate] = field(default_factory=list)
    by_prompt: list[PromptValues] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    judged: int = 0
    whole: int = 0
    without: int = 0
    strange: Counter[str] = field(default_factory=Counter)

    @property
    def gaps(self) -> str:
        """What is missing, as a sentence; empty where nothing is."""
        if self.whole == self.asked:
            return ""
        text = (
            f"{self.asked - self.whole} of {self.asked} questions have not two verdicts ({self.without} games without "
        )
        text += f"one, {self.asked - self.judged} questions without a judgment); they are neither lost nor won"
        if self.strange:
            text += f"; {', '.join(f'{count} × {label}' for label, count in self.strange.items())} is no verdict"
        return text


def report(
    benchmark: str,
    temperatures: Sequence[float],
    judged: Mapping[tuple[float, int], Sequence[Judgment]],
    questions: Sequence[Question],
) -> Report:
    """Both scores by temperature and category.

    Args:
        judged: by temperature and seed; the seeds of a temperature are taken together, by question.

    Raises:
        DataError: not one verdict at a temperature.
    """
    made, keys = Report(asked=len(questions) * len(judged)), question_keys(questions)
    categories = {one.id: one.category for one in questions}
    several = len(set(categories.values())) > 1
    for temperature in temperatures:
        runs = [judgments for run, judgments in judged.items() if run[0] == temperature]
        every, strange = known(one for judgments in runs for one in judgments)
        whole, asked = sum(map(is_whole, every)), len(questions) * len(runs)
        made.strange += strange
        made.judged, made.whole = made.judged + len(every), made.whole + whole
        made.without += sum(2 - len(one.games) for one in every)
        if not any(one.games for one in every):
            what = f"no judgment at temperature {temperature:g} has a verdict"
            raise DataError(what, benchmark, "look at what the judge has answered")
        by_category: dict[str, list[Judgment]] = defaultdict(list)
        for one in every:
            by_category[categories[one.question_id]].append(one)
        for category, judgments in by_category.items():
            _add_scores(made, f"{benchmark}/{category}" if several else benchmark, temperature, judgments, keys)
        if whole < asked:
            missing = Estimate(
                "questions_without_verdict", asked - whole, n=asked, unit="questions", split=benchmark,
                temperature=temperature,
            )  # fmt: skip
            made.estimates.append(missing)
    return made


def _add_scores(
    made: Report, split: str, temperature: float, judgments: Sequence[Judgment], keys: Mapping[str, str]
) -> None:
    judge, baseline = judgments[0].judge, judgments[0].baseline
    for metric, score_of in DEFINITIONS.items():
        score = score_of(judgments)
        if score is None:
            continue
        one = Estimate(
            metric, score.value, score.error, score.questions, "%", split, temperature, judge=judge, baseline=baseline,
            baselines=(Baseline("even", 50.0),),
        )  # fmt: skip
        made.estimates.append(one)
        prompts = [keys[name] for name in score.by_question]
        made.by_prompt.append(PromptValues.of(one, prompts, [*score.by_question.values()]))
        made.scores.append(
            {
                **{"metric": metric, "split": split, "temperature": temperature, "judge": judge, "baseline": baseline},
                **{"value": score.value, "low": score.low, "high": score.high, "error": score.error},
                "questions": score.questions,
            }
        )
