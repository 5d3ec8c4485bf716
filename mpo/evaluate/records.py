"""What measures give: estimates, and what is shown of samples. Words for people are in :mod:`mpo.report`. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Baseline:
    """A value beside an estimate, in its unit: the starting policy's, say, or that of a rule that reads no text."""

    name: str
    value: float
    standard_error: float | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured number.

    A value that is not finite (nothing could be measured) is kept as NaN.

    Attributes:
        metric: its name for programs, e.g. ``win_rate``.
        standard_error: None where it is not known.
        n: prompts or sets behind it.
        unit: of the value.
        split: the prompts that it is about.
        temperature: of the responses; None where none were sampled.
        round: of an iterative run, from 1; None for a single one.
        judge: who decided between two responses.
        baseline: what the policy was compared with.
        baselines: values beside it.
    """

    metric: str
    value: float
    standard_error: float | None = None
    n: int | None = None
    unit: str = ""
    split: str = "heldout"
    temperature: float | None = None
    round: int | None = None
    judge: str | None = None
    baseline: str | None = None
    baselines: tuple[Baseline, ...] = ()

    @property
    def key(self) -> str:
        """Unique within a run, for dashboards: ``heldout/win_rate@0.7``, with judge and round where there are any."""
        parts = [self.split, self.metric] if self.judge is None else [self.split, self.metric, self.judge]
        at = "" if self.temperature is None else f"@{self.temperature:g}"
        return "/".join(parts) + at + ("" if self.round is None else f"/round{self.round}")


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One prompt answered by the starting policy (``before``) and by the trained one (``after``)."""

    prompt: str
    before: str
    after: str
    score_before: float | None = None
    score_after: float | None = None


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values to draw as a histogram, e.g. scores or response lengths; one series a policy."""

    name: str
    unit: str
    series: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a measure gives."""

    estimates: list[Estimate] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)
    samples: list[SampleRow] = field(default_factory=list)
