"""From judgements to win rates: one group for each judge and baseline, one record for each model in it. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mpo.errors import DataError
from mpo.evaluate.annotations.judgements import Judgement
from mpo.evaluate.annotations.length_control import Comparisons, LengthControl, control_length
from mpo.evaluate.estimates import mean_over_prompts


@dataclass(frozen=True)
class ModelResult:
    """One model against one baseline by one judge; rates and errors in percent, lengths in characters.

    Attributes:
        files: where its records come from.
        instructions: how many of them were judged at least once.
        judgements: with a preference; several of one instruction are averaged first.
        ties: judgements of exactly a half.
        unjudged: records whose preference is null.
        missing: instructions of the group that it has no record of.
        repeated: instructions with more than one judgement.
        copies: records equal to an earlier one in all that is read.
        other_answers: repeated instructions on which the model's answer differs between records.
        turned: records with the model first.
        length, baseline_length: means over its records.
        win_rate: mean over instructions.
        standard_error: over instructions; NaN with fewer than two.
        judge_error: standard error of asking the judge again about the same answers; NaN without repeats.
        length_controlled: win rate at no difference in length, with the same two errors.
    """

    model: str
    files: tuple[str, ...]
    instructions: int
    judgements: int
    ties: int
    unjudged: int
    missing: int
    repeated: int
    copies: int
    other_answers: int
    turned: int
    length: float
    baseline_length: float
    win_rate: float
    standard_error: float
    judge_error: float
    length_controlled: float
    length_controlled_error: float
    length_controlled_judge_error: float


@dataclass(frozen=True)
class Group:
    """Everything that one judge said about models and one baseline.

    Attributes:
        instructions: in all its records together.
        length_effect, length_effect_error: φ of the length control, in log-odds, shared by its models.
        difficulty: standard deviation of the instructions' difficulty in log-odds; None where it was left out.
        models: the best length-controlled rate first.
        notes: what a reader should know before the figures are used, a sentence each.
    """

    judge: str
    baseline: str
    instructions: int
    length_effect: float
    length_effect_error: float
    difficulty: float | None
    models: tuple[ModelResult, ...]
    notes: tuple[str, ...]


def win_rates(judgements: Iterable[Judgement]) -> list[Group]:
    """Win rates of every model, by judge and baseline in the order of their first record.

    Raises:
        DataError: a model without one judgement.
    """
    by_group: dict[tuple[str, str], list[Judgement]] = defaultdict(list)
    for each in judgements:
        by_group[each.judge, each.baseline].append(each)
    return [_group(judge, baseline, found) for (judge, baseline), found in by_group.items()]


def _group(judge: str, baseline: str, judgements: list[Judgement]) -> Group:
    by_model: dict[str, list[Judgement]] = defaultdict(list)
    for each in judgements:
        by_model[each.model].append(each)
    instructions = {each.instruction for each in judgements}
    judged = {model: _by_instruction(records) for model, records in by_model.items()}
    for model, found in judged.items():
        if not found:
            raise DataError(f"no record of {model} has a preference", by_model[model][0].where, "judge it first")
    noise_M = np.array([_noise(found) for found in judged.values()])
    fit = control_length(_comparisons(list(judged.values())), noise_M)
    models = [
        _model_result(model, by_model[model], judged[model], len(instructions), float(noise_M[m]), fit, m)
        for m, model in enumerate(by_model)
    ]
    models.sort(key=lambda one: -one.length_controlled)
    effect, error = fit.length_effect, fit.length_effect_error
    difficulty = fit.difficulty if fit.joint else None
    notes = tuple(_notes(judged, judgements, fit))
    return Group(judge, baseline, len(instructions), effect, error, difficulty, tuple(models), notes)


def _by_instruction(records: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    """The records with a preference."""
    found: dict[str, list[Judgement]] = defaultdict(list)
    for each in records:
        if each.win is not None:
            found[each.instruction].append(each)
    return dict(found)


def _wins(repeats: Sequence[Judgement]) -> list[float]:
    return [each.win for each in repeats if each.win is not None]


def _noise(judged: dict[str, list[Judgement]]) -> float:
    """Variance between judgements of one instruction, pooled over those that have several; NaN where none has."""
    squares, degrees = 0.0, 0
    for repeats in judged.values():
        wins = np.array(_wins(repeats))
        squares += float(((wins - wins.mean()) ** 2).sum())
        degrees += len(wins) - 1
    return squares / degrees if degrees else float("nan")


def _comparisons(judged: Sequence[dict[str, list[Judgement]]]) -> Comparisons:
    numbers: dict[str, int] = {}
    rows = [
        (m, numbers.setdefault(instruction, len(numbers)), each.win, _difference(each), 1 / len(repeats))
        for m, found in enumerate(judged)
        for instruction, repeats in found.items()
        for each in repeats
    ]
    models, instructions, wins, differences, weights = zip(*rows, strict=True)
    return Comparisons(
        models_N=np.array(models),
        instructions_N=np.array(instructions),
        wins_N=np.array(wins),
        differences_N=np.array(differences, np.float64),
        weights_N=np.array(weights),
    )


def _difference(judgement: Judgement) -> int:
    return len(judgement.answer) - len(judgement.baseline_answer)


def _model_result(
    model: str,
    records: list[Judgement],
    judged: dict[str, list[Judgement]],
    instructions: int,
    noise: float,
    fit: LengthControl,
    m: int,
) -> ModelResult:
    rate = mean_over_prompts([float(np.mean(_wins(repeats))) for repeats in judged.values()])
    counts = np.array([len(repeats) for repeats in judged.values()])
    several = [repeats for repeats in judged.values() if len(repeats) > 1]
    return ModelResult(
        model=model,
        files=tuple(dict.fromkeys(each.file for each in records)),
        instructions=len(judged),
        judgements=int(counts.sum()),
        ties=sum(each.win == 0.5 for each in records),
        unjudged=sum(each.win is None for each in records),
        missing=instructions - len({each.instruction for each in records}),
        repeated=len(several),
        copies=len(records) - len({_content(each) for each in records}),
        other_answers=sum(len({each.answer for each in repeats}) > 1 for repeats in several),
        turned=sum(each.turned for each in records),
        length=float(np.mean([len(each.answer) for each in records])),
        baseline_length=float(np.mean([len(each.baseline_answer) for each in records])),
        win_rate=100 * rate.value,
        standard_error=100 * rate.standard_error,
        judge_error=100 * float(np.sqrt(noise * (1 / counts).sum()) / len(counts)),
        length_controlled=100 * float(fit.rates_M[m]),
        length_controlled_error=100 * float(fit.errors_M[m]),
        length_controlled_judge_error=100 * float(fit.judge_errors_M[m]),
    )


def _content(judgement: Judgement) -> tuple[object, ...]:
    return judgement.instruction, judgement.answer, judgement.baseline_answer, judgement.win


def _notes(
    judged: dict[str, dict[str, list[Judgement]]], judgements: list[Judgement], fit: LengthControl
) -> Iterable[str]:
    if not fit.joint:
        why = "one model only" if len(judged) == 1 else "no instruction has two models"
        yield f"{why}: no difficulty of instructions is estimated, and the effect of length leans on its prior"
    for model, found in judged.items():
        differences = {_difference(each) for repeats in found.values() for each in repeats}
        if len(differences) == 1 and differences != {0}:
            yield f"{model}: all its differences in length are the same, so its length is not controlled"
    if several := _differing(judgements, lambda each: each.baseline_answer):
        have = "instruction has" if several == 1 else "instructions have"
        yield f"{several} {have} different answers of the baseline in different records"


def _differing(judgements: Iterable[Judgement], value: Callable[[Judgement], str]) -> int:
    found: dict[str, set[str]] = defaultdict(set)
    for each in judgements:
        found[each.instruction].add(value(each))
    return sum(len(values) > 1 for values in found.values())
