"""Policy against starting policy on held-out prompts of the testbed: true reward, win rates, lengths."""

from __future__ import annotations

from collections.abc import Sequence

from mpo.errors import DataError
from mpo.evaluate.estimates import Mean, length_controlled, mean_over_prompts
from mpo.testbed.judge import judge
from mpo.types import ResponseSet


def compare(start: Sequence[ResponseSet], policy: Sequence[ResponseSet], seed: int) -> dict[str, Mean]:
    """Estimates over prompts; response i of the policy meets response i of the starting policy.

    Returns:
        ``true_reward`` and ``start_true_reward`` (0-10), ``gain``, ``within_prompt_std`` (of the start's rewards),
        ``win_rate`` (the judge's mean preference), ``lc_win_rate``, ``true_win_rate`` (by true reward, ties half),
        ``length`` and ``start_length`` (words).

    Raises:
        DataError: the two are not answers to the same prompts.
    """
    if [one.id for one in start] != [one.id for one in policy]:
        raise DataError("samples of other prompts", "evaluate", "sample both policies again")
    rows: dict[str, list[float]] = {
        name: [] for name in ("true_reward", "start_true_reward", "gain", "within_prompt_std", "win_rate",
                              "true_win_rate", "length", "start_length")
    }  # fmt: skip
    preferences: list[float] = []
    differences: list[float] = []
    prompts: list[int] = []
    for number, (before, after) in enumerate(zip(start, policy, strict=True)):
        question = before.prompt[-1].content
        old = [_score(response.score) for response in before.responses]
        new = [_score(response.score) for response in after.responses]
        pairs = list(zip(before.responses, after.responses, strict=True))
        wins = [judge(question, a.text, b.text, seed) for a, b in pairs]
        truth = [0.5 if a == b else float(b > a) for a, b in zip(old, new, strict=True)]
        old_lengths = [len(a.text.split()) for a, _ in pairs]
        new_lengths = [len(b.text.split()) for _, b in pairs]
        rows["true_reward"].append(_mean(new))
        rows["start_true_reward"].append(_mean(old))
        rows["gain"].append(_mean(new) - _mean(old))
        rows["within_prompt_std"].append((sum((x - _mean(old)) ** 2 for x in old) / max(len(old) - 1, 1)) ** 0.5)
        rows["win_rate"].append(_mean(wins))
        rows["true_win_rate"].append(_mean(truth))
        rows["length"].append(_mean(new_lengths))
        rows["start_length"].append(_mean(old_lengths))
        preferences += wins
        differences += [b - a for a, b in zip(old_lengths, new_lengths, strict=True)]
        prompts += [number] * len(wins)
    estimates = {name: mean_over_prompts(values) for name, values in rows.items()}
    return {**estimates, "lc_win_rate": length_controlled(preferences, differences, prompts)}


def _score(score: float | None) -> float:
    if score is None:
        raise DataError("a sampled response has no score", "evaluate", "score the samples first")
    return score


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
