"""From judges' decisions to annotations in AlpacaEval's format and estimates. Imports numpy and scipy, no torch."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mpo.evaluate.annotations.judgements import judgement_of
from mpo.evaluate.annotations.win_rates import ModelResult, win_rates
from mpo.evaluate.estimates import Mean, mean_over_prompts
from mpo.evaluate.judged_win_rate.asking import Asked, Decision
from mpo.evaluate.judged_win_rate.pairs import Pairs
from mpo.evaluate.records import Baseline, Estimate, PromptValues
from mpo.score.judge_prompt import response_text

EVEN = (Baseline("even", 0.5),)
PERCENT = 100


def annotation_records(pairs: Pairs, asked: Mapping[str, Asked]) -> list[dict[str, Any]]:
    """A record for each pair, judge and repeat; ``preference`` is the mean of both orders, null without a verdict."""
    return [
        {
            "instruction": pair.instruction,
            "output_1": pair.baseline.content if pair.baseline.is_plain else response_text(pair.baseline),
            "generator_1": pairs.baseline,
            "output_2": pair.item.response.content if pair.item.response.is_plain else pair.texts[1],
            "generator_2": pairs.policy,
            "annotator": name,
            "preference": None if decision.win is None else 1 + decision.win,
            **found.details,
            **decision.details,
        }
        for name, found in asked.items()
        for pair, decisions in zip(pairs.pairs, found.decisions, strict=True)
        for decision in decisions
    ]


def estimates(
    pairs: Pairs, asked: Mapping[str, Asked], records: Sequence[Mapping[str, Any]], baseline: str
) -> list[Estimate]:
    """Of each judge, then how far each two judges agree; win rates are those of ``python -m mpo.evaluate.winrate``.

    Args:
        records: :func:`annotation_records` of the same.
        baseline: what people call it.
    """
    judgements = [judgement_of(record, f"row {n}", "annotations", None) for n, record in enumerate(records, 1)]
    judged = {each.judge for each in judgements if each.win is not None}
    groups = win_rates(each for each in judgements if each.judge in judged)
    results = {group.judge: group.models[0] for group in groups}
    found: list[tuple[str, str, Mean, tuple[Baseline, ...]]] = []
    for name, one in asked.items():
        found += [(metric, name, mean, even) for metric, mean, even in _of_judge(pairs, one, results.get(name))]
    for one_name, other_name in itertools.combinations(asked, 2):
        named = f"{one_name} and {other_name}"
        same, kappa = agreement(pairs, asked[one_name], asked[other_name])
        found += [("agreement", named, same, ()), ("kappa", named, kappa, ())]
    return [
        Estimate(
            metric,
            mean.value,
            mean.standard_error,
            mean.count,
            temperature=pairs.temperature,
            judge=judge,
            baseline=baseline,
            baselines=even,
        )  # fmt: skip
        for metric, judge, mean, even in found
    ]


def wins_by_prompt(pairs: Pairs, asked: Mapping[str, Asked], found: Iterable[Estimate]) -> list[PromptValues]:
    """The mean share of the win on each prompt, of each ``found`` win rate; NaN where there is no verdict."""
    rates = {each.judge: each for each in found if each.metric == "win_rate"}
    values = []
    for name, one in asked.items():
        wins: dict[str, list[float]] = {pair.prompt: [] for pair in pairs.pairs}
        for pair, decisions in zip(pairs.pairs, one.decisions, strict=True):
            wins[pair.prompt] += [each.win for each in decisions if each.win is not None]
        means = [float(np.mean(each)) if each else math.nan for each in wins.values()]
        values.append(PromptValues.of(rates[name], list(wins), means))
    return values


def agreement(pairs: Pairs, one: Asked, other: Asked) -> tuple[Mean, Mean]:
    """Share of pairs of which both judges say the same (win, loss or tie, the mean of their repeats), and Cohen's kappa
    of it (Educational and Psychological Measurement 20, 1960); standard errors over instructions, kappa's by jackknife.
    Pairs without a verdict of either are left out."""
    tables: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((3, 3)))
    for pair, mine, others in zip(pairs.pairs, one.decisions, other.decisions, strict=True):
        a, b = _outcome(mine), _outcome(others)
        if a is not None and b is not None:
            tables[pair.instruction][a, b] += 1
    if not tables:
        nothing = Mean(math.nan, math.nan, 0)
        return nothing, nothing
    tables_X33 = np.stack(list(tables.values()))
    count, total_33 = len(tables_X33), tables_X33.sum(axis=0)
    same = mean_over_prompts((np.trace(tables_X33, axis1=1, axis2=2) / tables_X33.sum(axis=(1, 2))).tolist())
    without_X = _kappa(total_33 - tables_X33) if count > 1 else np.full(1, math.nan)
    error = math.sqrt((count - 1) / count * float(((without_X - without_X.mean()) ** 2).sum()))
    return same, Mean(float(_kappa(total_33[None])[0]), error, count)


def _kappa(tables_X33: np.ndarray) -> np.ndarray:
    """Of each table of counts; NaN where both judges say one and the same of everything."""
    shares_X33 = tables_X33 / tables_X33.sum(axis=(1, 2), keepdims=True)
    seen_X = np.trace(shares_X33, axis1=1, axis2=2)
    expected_X = (shares_X33.sum(axis=1) * shares_X33.sum(axis=2)).sum(axis=1)
    by_chance_X = np.where(expected_X < 1, 1 - expected_X, math.nan)
    found_X: np.ndarray = (seen_X - expected_X) / by_chance_X
    return found_X


def _outcome(decisions: Iterable[Decision]) -> int | None:
    """0: the baseline wins, 1: a tie, 2: the policy wins."""
    wins = [each.win for each in decisions if each.win is not None]
    return int(np.sign(round(sum(wins) / len(wins) - 0.5, 12))) + 1 if wins else None


def _of_judge(pairs: Pairs, asked: Asked, result: ModelResult | None) -> list[tuple[str, Mean, tuple[Baseline, ...]]]:
    every = [each for decisions in asked.decisions for each in decisions]
    found: list[tuple[str, Mean, tuple[Baseline, ...]]] = []
    for metric, value, error, again in (
        ("win_rate", "win_rate", "standard_error", "judge_error"),
        ("length_controlled_win_rate", "length_controlled", "length_controlled_error", "length_controlled_judge_error"),
    ):
        numbers = [math.nan if result is None else getattr(result, name) / PERCENT for name in (value, error, again)]
        count = 0 if result is None else result.instructions
        found.append((metric, Mean(numbers[0], numbers[1], count), EVEN))
        if any(len(decisions) > 1 for decisions in asked.decisions):
            found.append((f"{metric}_judge_error", Mean(numbers[2], math.nan, count), ()))
    if any(each.first is not None for each in every):
        firsts = [[None if each.first is None else each.first - 0.5 for each in few] for few in asked.decisions]
        turned = [[None if each.turned is None else float(each.turned) for each in few] for few in asked.decisions]
        found.append(("position_bias", _over_instructions(pairs, firsts), (Baseline("none", 0.0),)))
        found.append(("order_decides", _over_instructions(pairs, turned), (Baseline("none", 0.0),)))
    missing = [[float(each.win is None) for each in decisions] for decisions in asked.decisions]
    return [*found, ("missing_verdicts", _over_instructions(pairs, missing), ())]


def _over_instructions(pairs: Pairs, values: Sequence[Sequence[float | None]]) -> Mean:
    """Mean over instructions of the mean over what each has."""
    by_instruction: dict[str, list[float]] = defaultdict(list)
    for pair, few in zip(pairs.pairs, values, strict=True):
        by_instruction[pair.instruction] += [each for each in few if each is not None]
    return mean_over_prompts([float(np.mean(each)) for each in by_instruction.values() if each])
