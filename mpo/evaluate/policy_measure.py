"""Measures of one policy by itself, such as a benchmark, and the difference that training has made. No torch."""

from __future__ import annotations

import math
import statistics
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mpo.cache.artifacts import read_json, write_json
from mpo.errors import DataError
from mpo.evaluate.base import START, Evidence, Measure
from mpo.evaluate.records import Baseline, Estimate, Findings, PolicyResult, PromptValues
from mpo.plain import finite, to_plain

RESULTS_FILE = "results.json"
SPLIT = "benchmark"
CHANGE = "change"


@dataclass(frozen=True)
class PolicyFiles:
    """A policy to load.

    Attributes:
        model: folder or hub name.
        revision: on the hub; None for a folder.
        tokenizer: folder of its tokenizer, with the run's chat template.
        has_chat_template: whether there is one.
        thought_end: the mark after which an answer begins; None for a policy that does not think.
        trust_remote_code: whether code beside the model may run.
    """

    model: str
    revision: str | None
    tokenizer: str
    has_chat_template: bool
    thought_end: str | None
    trust_remote_code: bool


class PolicyMeasure(Measure):
    """Measures each policy by itself, in a stage of its own: the starting policy once for all losses and seeds."""

    immediate: ClassVar[bool] = True

    @abstractmethod
    def measure_policy(self, policy: PolicyFiles, folder: Path) -> list[PolicyResult]:
        """What it finds; the same for the same policy.

        Args:
            folder: for what it keeps beside its results; of a run that was stopped, what that has left there.
        """

    def measure(self, evidence: Evidence) -> Findings:
        """Each number beside the starting policy's, and how much it has changed; see :meth:`Measure.measure`.

        Raises:
            DataError: the two policies were asked other questions.
        """
        if evidence.results is None:
            return Findings()
        before = {each.metric: each for each in evidence.results.start}
        found = Findings()
        for each in evidence.results.policy:
            _compare(before.get(each.metric), each, found)
        return found


def write_results(folder: Path, results: Sequence[PolicyResult]) -> None:
    """Save them in a stage's directory."""
    write_json(folder / RESULTS_FILE, finite(to_plain(results)))


def read_results(folder: Path) -> list[PolicyResult]:
    """What :func:`write_results` has saved."""
    return [PolicyResult(**{**row, "value": _number(row["value"])}) for row in read_json(folder / RESULTS_FILE)]


def _compare(before: PolicyResult | None, after: PolicyResult, found: Findings) -> None:
    if before is None or before.prompts != after.prompts:
        what = f"the starting policy was asked other questions for {after.metric}"
        raise DataError(what, "measure", "remove its stage of the starting policy from the cache, and run again")
    base = Baseline(START, before.value, before.standard_error)
    itself = Estimate(after.metric, after.value, after.standard_error, after.n, split=SPLIT, baselines=(base,))
    pairs, error = [], None
    if len(after.values) == len(before.values):  # the same questions, so that their difficulty cancels
        pairs = [new - old for old, new in zip(before.values, after.values, strict=True)]
        error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else None
    value = after.value - before.value
    change = Estimate(f"{after.metric}/{CHANGE}", value, error, after.n, split=SPLIT, baseline=START)
    for estimate, values in ((itself, after.values), (change, pairs)):
        found.estimates.append(estimate)
        if values:
            found.by_prompt.append(PromptValues.of(estimate, after.prompts, values))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
