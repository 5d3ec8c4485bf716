"""From AlpacaEval's annotations to estimates, as the command ``mpo.evaluate.winrate`` reads them. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpo.errors import DataError
from mpo.evaluate.annotations.judgements import Judgement, read_judgements
from mpo.evaluate.annotations.win_rates import win_rates
from mpo.evaluate.questions import Question, question_keys
from mpo.evaluate.records import Baseline, Estimate, Findings, PromptValues

SPLIT = "alpaca_eval"


def findings(
    annotations: Path,
    names: Mapping[float, str],
    questions: Sequence[Question],
    controlled: Mapping[float, tuple[float, float]] | None,
) -> Findings:
    """Rates in percent at each temperature; the seeds of one are averaged by instruction first.

    Args:
        names: of the policy in the annotations, by temperature.
        controlled: the package's length-controlled win rates and errors by temperature; None: this project's are taken.

    Raises:
        DataError: an annotation that cannot be used.
    """
    judgements = read_judgements([str(annotations)], None, _unusable)
    (group,) = win_rates(judgements)
    by_name = {each.model: each for each in group.models}
    keys, ids = question_keys(questions), {one.turns[0]: one.id for one in questions}
    found: list[Estimate] = []
    by_prompt: list[PromptValues] = []
    for temperature, name in names.items():
        model = by_name[name]

        def add(
            metric: str, value: float, error: float | None = None, unit: str = "%",
            baselines: tuple[Baseline, ...] = (Baseline("even", 50.0),), values: Mapping[str, float] | None = None,
            count: int = model.instructions, at: float = temperature,
        ) -> None:  # fmt: skip
            one = Estimate(
                metric, value, error, count, unit, SPLIT, at, judge=group.judge, baseline=group.baseline,
                baselines=baselines,
            )  # fmt: skip
            found.append(one)
            if values is not None:
                by_prompt.append(PromptValues.of(one, [keys[ids[each]] for each in values], [*values.values()]))

        own = [each for each in judgements if each.model == name]
        won = {instruction: 100 * value for instruction, value in _means(own, wins=True).items()}
        add("win_rate", model.win_rate, model.standard_error, values=won)
        if controlled is None:
            add("length_controlled_win_rate_by_mpo", model.length_controlled, model.length_controlled_error)
        else:
            add("length_controlled_win_rate", *controlled[temperature])
        reference = (Baseline(group.baseline, model.baseline_length),)
        add("length", model.length, unit="characters", baselines=reference, values=_means(own, wins=False))
        if model.unjudged:
            add("pairs_without_verdict", model.unjudged, unit="pairs", baselines=())
    return Findings(found, by_prompt=by_prompt)


def _unusable(error: DataError) -> None:
    raise error


def _means(judgements: Sequence[Judgement], wins: bool) -> dict[str, float]:
    """By instruction, the mean share of a win, where there is a verdict, or the mean length."""
    found: dict[str, list[float]] = defaultdict(list)
    for each in judgements:
        if not wins:
            found[each.instruction].append(float(len(each.answer)))
        elif each.win is not None:
            found[each.instruction].append(each.win)
    return {instruction: sum(values) / len(values) for instruction, values in found.items()}
