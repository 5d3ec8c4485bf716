"""From Arena-Hard's judgments to estimates. No torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mpo.errors import DataError
from mpo.evaluate.arena_files import Judgment, is_whole
from mpo.evaluate.arena_scores import known, score_of_2024, score_of_2025
from mpo.evaluate.records import Baseline, Estimate

DEFINITIONS = {"win_rate_of_2024": score_of_2024, "mean_score_of_2025": score_of_2025}
"""The tool's two scores by metric."""


def estimates(
    benchmark: str, temperatures: Sequence[float], judged: Mapping[tuple[float, int], Sequence[Judgment]], count: int
) -> tuple[list[Estimate], dict[str, Any], str]:
    """Both scores by temperature and category, a record with their intervals, and what is missing, as a sentence.

    Args:
        judged: by temperature and seed; the seeds of a temperature are taken together, by question.
        count: questions that there are.

    Raises:
        DataError: not one verdict at a temperature.
    """
    found: list[Estimate] = []
    records: list[dict[str, Any]] = []
    gaps = games = judgments_in = 0
    asked = count * len(judged)
    labels: Counter[str] = Counter()
    for temperature in temperatures:
        runs = [judgments for run, judgments in judged.items() if run[0] == temperature]
        every, strange = known(one for judgments in runs for one in judgments)
        labels += strange
        without = count * len(runs) - sum(map(is_whole, every))
        gaps, judgments_in = gaps + without, judgments_in + len(every)
        games += sum(2 - len(one.games) for one in every)
        by_category: dict[str, list[Judgment]] = defaultdict(list)
        for one in every:
            by_category[one.category].append(one)
        if not any(one.games for one in every):
            what = f"no judgment at temperature {temperature:g} has a verdict"
            raise DataError(what, benchmark, "look at what the judge has answered")
        for category, judgments in by_category.items():
            split = f"{benchmark}/{category}" if len(by_category) > 1 else benchmark
            for metric, score_of in DEFINITIONS.items():
                score = score_of(judgments)
                if score is None:
                    continue
                judge, baseline = judgments[0].judge, judgments[0].baseline
                found.append(
                    Estimate(
                        metric, score.value, score.error, score.questions, "%", split, temperature, judge=judge,
                        baseline=baseline, baselines=(Baseline("even", 50.0),),
                    )
                )  # fmt: skip
                said = {"metric": metric, "split": split, "temperature": temperature, "judge": judge}
                records.append({**said, "baseline": baseline, **asdict(score)})
        if without:
            found.append(
                Estimate("questions_without_verdict", without, n=count * len(runs), unit="questions", split=benchmark,
                         temperature=temperature)
            )  # fmt: skip
    sentence = ""
    if gaps:
        sentence = (
            f"{gaps} of {asked} questions have not two verdicts ({games} games without one, {asked - judgments_in} "
        )
        sentence += "questions without a judgment); what is missing counts neither as lost nor as won"
        if labels:
            sentence += f"; {', '.join(f'{count} × {label}' for label, count in labels.items())} is no verdict"
    return found, {"scores": records, "questions": count, "without_two_verdicts": gaps}, sentence
