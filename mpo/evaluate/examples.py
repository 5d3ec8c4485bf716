"""A few held-out prompts answered before and after training, to read, and how scores and lengths are distributed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mpo.evaluate.base import START, Evidence, Measure
from mpo.evaluate.records import Distribution, Findings, SampleRow
from mpo.types import Response, ResponseSet

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
        score = evidence.score

        def scores(sets: list[ResponseSet]) -> tuple[float, ...]:
            found = [_score(each, score) for one in sets for each in one.responses]
            return tuple(float(value) for value in found if value is not None)

        for name, unit, values in (("true reward", "points", scores), ("response length", "words", _lengths)):
            series = {START: values(first.start), TRAINED: values(first.policy)}
            if all(series.values()):
                distributions.append(Distribution(f"{name} {at}", unit, series))
        rows = list(zip(first.start, first.policy, strict=True))[: self.shown]
        return Findings(distributions=distributions, samples=[_row(*row, score) for row in rows])


def _score(response: Response, name: str | None) -> float | None:
    return None if name is None else response.score_by(name)


def _lengths(sets: list[ResponseSet]) -> tuple[float, ...]:
    return tuple(float(len(each.text.split())) for one in sets for each in one.responses)


def _row(before: ResponseSet, after: ResponseSet, score: str | None) -> SampleRow:
    old, new = before.responses[0], after.responses[0]
    return SampleRow(before.prompt[-1].content, old.text, new.text, _score(old, score), _score(new, score))
