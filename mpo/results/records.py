"""What the store holds of a run. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mpo.evaluate.records import Baseline, Estimate
from mpo.report.records import RunReport
from mpo.results.keys import config_key, run_id, run_key

SCHEMA_VERSION = 1
"""Of a run's file; one with a larger number is refused, one with a smaller number is read."""


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run.

    Attributes:
        id: of its configuration, code and estimates, see :func:`mpo.results.keys.run_id`.
        run_key: of its configuration with the seed.
        config_key: of its configuration without the seed: runs over seeds have one.
        config: complete but for folders of the machine.
        versions: of Python and libraries.
        commit: of the checkout, with ``+changes`` where files differed from it; empty for an installed package.
        created: ISO 8601 time at which it finished.
        seconds: of the stages that it built.
        note: said beside every result of its data.
    """

    id: str
    run_key: str
    config_key: str
    name: str
    seed: int
    config: dict[str, Any] = field(hash=False)
    versions: dict[str, str] = field(hash=False)
    commit: str = ""
    hardware: str = ""
    command: str = ""
    created: str = ""
    seconds: float = 0.0
    note: str = ""

    @classmethod
    def of(cls, report: RunReport) -> Run:
        """What its record says of a run."""
        return cls(
            run_id(report.config, report.versions, report.commit, report.evaluation),
            run_key(report.config),
            config_key(report.config),
            report.name,
            report.seed,
            {key: value for key, value in report.config.items() if key not in ("cache_dir", "results")},
            dict(report.versions),
            report.commit,
            report.hardware,
            report.command,
            report.created,
            report.seconds,
            report.note,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One estimate of a run; fields as those of :class:`mpo.evaluate.records.Estimate`."""

    run: Run
    metric: str
    split: str
    temperature: float | None
    round: int | None
    judge: str | None
    baseline: str | None
    value: float
    standard_error: float | None
    n: int | None
    unit: str
    baselines: tuple[Baseline, ...] = ()

    @property
    def estimate(self) -> Estimate:
        """Without the run."""
        return Estimate(
            self.metric, self.value, self.standard_error, self.n, self.unit, self.split, self.temperature, self.round,
            self.judge, self.baseline, self.baselines,
        )  # fmt: skip

    @classmethod
    def of(cls, run: Run, estimate: Estimate) -> Row:
        """An estimate of ``run``."""
        return cls(
            run, estimate.metric, estimate.split, estimate.temperature, estimate.round, estimate.judge,
            estimate.baseline, estimate.value, estimate.standard_error, estimate.n, estimate.unit, estimate.baselines,
        )  # fmt: skip
