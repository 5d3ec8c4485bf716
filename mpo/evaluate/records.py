"""What measures give: estimates, and what is shown of samples. Words for people are in :mod:`mpo.report`. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

About = tuple[str, str, float | None, int | None, str | None, str | None]
"""Metric, split, temperature, round, judge and baseline of an estimate."""


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
    def about(self) -> About:
        """What it is about, apart from its value."""
        return self.metric, self.split, self.temperature, self.round, self.judge, self.baseline

    @property
    def key(self) -> str:
        """For dashboards: ``heldout/win_rate@0.7``, with judge and round where there are any; see :func:`by_key`."""
        parts = [self.split, self.metric] if self.judge is None else [self.split, self.metric, self.judge]
        at = "" if self.temperature is None else f"@{self.temperature:g}"
        return "/".join(parts) + at + ("" if self.round is None else f"/round{self.round}")


def by_key(estimates: Sequence[Estimate]) -> dict[str, Estimate]:
    """Those of one run by :attr:`Estimate.key`, with the baseline behind it where several differ by that alone."""
    several = Counter(estimate.key for estimate in estimates)
    return {
        estimate.key if several[estimate.key] == 1 else f"{estimate.key}/{estimate.baseline}": estimate
        for estimate in estimates
    }


@dataclass(frozen=True, slots=True)
class PromptValues:
    """The values behind an estimate, one a prompt, so that two runs can be compared prompt by prompt.

    Attributes:
        metric: and ``split``, ``temperature``, ``round``, ``judge``, ``baseline``: those of the estimate.
        prompts: what each prompt is known by in every run, see :func:`mpo.evaluate.prompts.prompt_keys`.
        values: in the estimate's unit; NaN where nothing could be measured.
    """

    metric: str
    prompts: tuple[str, ...]
    values: tuple[float, ...]
    split: str = "heldout"
    temperature: float | None = None
    round: int | None = None
    judge: str | None = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.values) or len(set(self.prompts)) != len(self.prompts):
            raise ValueError(f"{self.metric} has {len(self.values)} values of {len(set(self.prompts))} prompts")

    @classmethod
    def of(cls, estimate: Estimate, prompts: Sequence[str], values: Sequence[float]) -> PromptValues:
        """The values behind ``estimate``."""
        return cls(
            estimate.metric, tuple(prompts), tuple(values), estimate.split, estimate.temperature, estimate.round,
            estimate.judge, estimate.baseline,
        )  # fmt: skip

    @property
    def about(self) -> About:
        """What they are about, apart from the values: that of their estimate."""
        return self.metric, self.split, self.temperature, self.round, self.judge, self.baseline


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """A number measured on one policy by itself.

    Attributes:
        metric: its name for programs.
        standard_error: None where it is not known.
        n: questions behind it.
        prompts: what each question is known by, in their order.
        values: one number a question, whose mean is ``value``; empty where it is no such mean.
    """

    metric: str
    value: float
    standard_error: float | None
    n: int
    prompts: list[str]
    values: list[float]


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
    """All that a measure gives; ``by_prompt`` are the values behind estimates of these."""

    estimates: list[Estimate] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)
    samples: list[SampleRow] = field(default_factory=list)
    by_prompt: list[PromptValues] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = [each.about for each in self.estimates]
        for each in self.by_prompt:
            if each.about not in known:
                raise ValueError(f"values by prompt of {each.metric} belong to no estimate")
