"""What people call estimates, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable

from mpo.evaluate.records import Estimate

NAMES = {
    "true_reward": "true reward",
    "true_reward_gain": "gain in true reward",
    "win_rate": "win rate",
    "lc_win_rate": "length-controlled win rate",
    "length_controlled_win_rate": "length-controlled win rate",
    "win_rate_judge_error": "win rate's error by the judge",
    "length_controlled_win_rate_judge_error": "length-controlled win rate's error by the judge",
    "order_decides": "pairs whose winner changes with the order",
    "missing_verdicts": "pairs without a verdict",
    "agreement": "judges' agreement",
    "kappa": "judges' kappa",
    "length_controlled_win_rate_by_mpo": "length-controlled win rate (this project's fit)",
    "pairs_without_verdict": "pairs without a verdict",
    "win_rate_of_2024": "win rate (Arena-Hard of 2024)",
    "mean_score_of_2025": "mean score (Arena-Hard of 2025)",
    "questions_without_verdict": "questions without a verdict",
    "true_win_rate": "win rate by true reward",
    "length": "response length",
    "start_within_prompt_std": "start's within-prompt std",
    "ranking_accuracy": "held-out ranking accuracy",
    "ranking_margin": "held-out margin",
    "reference_kl": "held-out KL(reference || policy)",
    "loss": "held-out loss",
    "mt_bench": "MT-Bench score",
}
"""Names of the project's own metrics; others are shown by theirs, with blanks."""
IN_EVERY_ROUND = ("true_reward", "win_rate")
"""Metrics of which earlier rounds are shown beside the last one."""


def titles(estimates: Iterable[Estimate]) -> dict[str, Estimate]:
    """Estimates by title: all of the last round, then chosen ones of every round."""
    every = list(estimates)
    last = max((each.round for each in every if each.round is not None), default=None)
    named: dict[str, Estimate] = {}
    for each in every:
        if each.round == last:
            _add(named, _title(each), each)
    for each in every:
        if each.round is not None and each.metric in IN_EVERY_ROUND:
            _add(named, f"{_title(each)}, round {each.round}", each)
    return named


def _add(named: dict[str, Estimate], title: str, estimate: Estimate) -> None:
    """Under its title, with more of what it is where another one has that already."""
    if title in named and estimate.judge is not None and estimate.judge != named[title].judge:
        title = f"{title}, judged by {estimate.judge}"
    if title in named and estimate.baseline is not None and estimate.baseline != named[title].baseline:
        title = f"{title}, over {estimate.baseline}"
    named[title if title not in named else f"{title} ({estimate.key})"] = estimate


def metric_name(metric: str) -> str:
    """What people call a metric."""
    return NAMES.get(metric, metric.replace("_", " "))


def _title(estimate: Estimate) -> str:
    name = metric_name(estimate.metric)
    return name if estimate.temperature is None else f"{name} at T={estimate.temperature:g}"
