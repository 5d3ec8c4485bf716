"""Policy against starting policy on held-out prompts of the testbed: true reward, win rates, lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpo.errors import DataError
from mpo.evaluate.base import START, Evidence, Measure, Samples
from mpo.evaluate.prompts import prompt_keys
from mpo.evaluate.records import Baseline, Estimate, Findings, PromptValues
from mpo.testbed.judge import judge
from mpo.types import OWN_SCORE, Response, ResponseSet

if TYPE_CHECKING:
    from mpo.evaluate.estimates import Mean

JUDGE = "testbed"


@dataclass(frozen=True)
class WinRate(Measure):
    """True reward, win rates against the starting policy, and lengths, at each temperature."""

    needs_samples: ClassVar[bool] = True
    needs_truth: ClassVar[bool] = True

    def measure(self, evidence: Evidence) -> Findings:
        """See :meth:`Measure.measure`."""
        found = [_compared(one, evidence.score, evidence.seed) for one in evidence.samples]
        return Findings(
            [each for one in found for each in one.estimates],
            by_prompt=[each for one in found for each in one.by_prompt],
        )


def _compared(samples: Samples, score: str | None, seed: int) -> Findings:
    found, by_prompt = compare(samples.start, samples.policy, score or OWN_SCORE, seed)

    def estimate(
        metric: str, unit: str = "", judge: str | None = None, start: str = "", half: bool = False
    ) -> Estimate:
        mean = found[metric]
        baselines: tuple[Baseline, ...] = (Baseline("even", 0.5),) if half else ()
        if start:
            baselines = (Baseline(START, found[start].value, found[start].standard_error),)
        return Estimate(
            metric, mean.value, mean.standard_error, mean.count, unit, temperature=samples.temperature, judge=judge,
            baseline=START, baselines=baselines,
        )  # fmt: skip

    estimates = [
        estimate("true_reward", "of 10", start="start_true_reward"),
        estimate("true_reward_gain", "of 10"),
        estimate("win_rate", judge=JUDGE, half=True),
        estimate("lc_win_rate", judge=JUDGE, half=True),
        estimate("true_win_rate", judge="true_reward", half=True),
        estimate("length", "words", start="start_length"),
        estimate("start_within_prompt_std", "of 10"),
    ]
    prompts = prompt_keys(samples.policy)
    behind = [PromptValues.of(each, prompts, by_prompt[each.metric]) for each in estimates if each.metric in by_prompt]
    return Findings(estimates, by_prompt=behind)


def compare(
    start: Sequence[ResponseSet], policy: Sequence[ResponseSet], score: str, seed: int
) -> tuple[dict[str, Mean], dict[str, list[float]]]:
    """Estimates over prompts; response i of the policy meets response i of the starting policy.

    Returns:
        ``true_reward`` and ``start_true_reward`` (0-10), ``true_reward_gain``, ``start_within_prompt_std``,
        ``win_rate`` (the judge's mean preference), ``lc_win_rate``, ``true_win_rate`` (by true reward, ties half),
        ``length`` and ``start_length`` (words). Then, of all but ``lc_win_rate``, the values of the prompts.

    Raises:
        DataError: the two are not answers to the same prompts.
    """
    from mpo.evaluate.estimates import length_controlled, mean_over_prompts  # here: it leads to scipy

    if [one.id for one in start] != [one.id for one in policy]:
        raise DataError("samples of other prompts", "evaluate", "sample both policies again")
    rows: dict[str, list[float]] = {
        name: []
        for name in ("true_reward", "start_true_reward", "true_reward_gain", "start_within_prompt_std", "win_rate",
                     "true_win_rate", "length", "start_length")
    }  # fmt: skip
    preferences: list[float] = []
    differences: list[float] = []
    prompts: list[int] = []
    for number, (before, after) in enumerate(zip(start, policy, strict=True)):
        question = before.prompt[-1].content
        old = [_score(response, score) for response in before.responses]
        new = [_score(response, score) for response in after.responses]
        pairs = list(zip(before.responses, after.responses, strict=True))
        wins = [judge(question, a.text, b.text, seed) for a, b in pairs]
        truth = [0.5 if a == b else float(b > a) for a, b in zip(old, new, strict=True)]
        old_lengths = [len(a.text.split()) for a, _ in pairs]
        new_lengths = [len(b.text.split()) for _, b in pairs]
        rows["true_reward"].append(_mean(new))
        rows["start_true_reward"].append(_mean(old))
        rows["true_reward_gain"].append(_mean(new) - _mean(old))
        rows["start_within_prompt_std"].append((sum((x - _mean(old)) ** 2 for x in old) / max(len(old) - 1, 1)) ** 0.5)
        rows["win_rate"].append(_mean(wins))
        rows["true_win_rate"].append(_mean(truth))
        rows["length"].append(_mean(new_lengths))
        rows["start_length"].append(_mean(old_lengths))
        preferences += wins
        differences += [b - a for a, b in zip(old_lengths, new_lengths, strict=True)]
        prompts += [number] * len(wins)
    estimates = {name: mean_over_prompts(values) for name, values in rows.items()}
    return {**estimates, "lc_win_rate": length_controlled(preferences, differences, prompts)}, rows


def _score(response: Response, name: str) -> float:
    score = response.score_by(name)
    if score is None:
        raise DataError(f"a sampled response has no score '{name}'", "evaluate", "score the samples first")
    return score


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
