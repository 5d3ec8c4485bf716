"""A few held-out prompts answered before and after training, to read, and how scores and lengths are distributed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mpo.evaluate.base import START, Evidence, Measure
from mpo.evaluate.records import Distribution, Findings, SampleRow
from mpo.types import ResponseSet

TRAINED = "trained policy"


@dataclass(frozen=True)
class Examples(Measure):
    """The first ``shown`` prompts at the first temperature."""

    shown: int = 8

    needs_samples: ClassVar[bool] = True
    immediate: ClassVar[bool] = True

    def measure(self, evidence: Evidence) -> Findings:
        """See :meth:`Measure.measure`."""
        if not evidence.samples:
            return Findings()
        first = evidence.samples[0]
        at = f"at T={first.temperature:g}"
        distributions = []
        for name, unit, values in (("true reward", "points", _scores), ("response length", "words", _lengths)):
            series = {START: values(first.start), TRAINED: values(first.policy)}
            if all(series.values()):
                distributions.append(Distribution(f"{name} {at}", unit, series))
        rows = list(zip(first.start, first.policy, strict=True))[: self.shown]
        return Findings(distributions=distributions, samples=[_row(before, after) for before, after in rows])


def _scores(sets: list[ResponseSet]) -> tuple[float, ...]:
    return tuple(float(each.score) for one in sets for each in one.responses if each.score is not None)


def _lengths(sets: list[ResponseSet]) -> tuple[float, ...]:
    return tuple(float(len(each.text.split())) for one in sets for each in one.responses)


def _row(before: ResponseSet, after: ResponseSet) -> SampleRow:
    old, new = before.responses[0], after.responses[0]
    return SampleRow(before.prompt[-1].content, old.text, new.text, old.score, new.score)
