"""Invented members of a sweep: Hydra composes and launches them, but they take no time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mpo.config.schema import SweepConfig
from mpo.evaluate.records import Estimate
from mpo.pipeline.multirun import AlreadyReported
from mpo.report.records import RunReport
from mpo.sweeps.space import space_of
from mpo.sweeps.sweeper import Sweep

METRIC = "heldout/reward@1"
Value = Callable[[dict[str, str]], float | None]


def invented(
    folder: Path, value: float, config: dict[str, object] | None = None, accuracy: Sequence[tuple[int, float]] = ()
) -> RunReport:
    """A finished run of which the record alone is there, and evaluations of its training: step and accuracy."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"step": step, "heldout/accuracy": one}) for step, one in accuracy]
    (folder / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
    estimates = (Estimate("reward", value, 0.1, temperature=1.0), Estimate("length", 9.0))
    made = RunReport(folder, folder.name, "invented", config or {}, 0, {}, "", "", "", "", evaluation=estimates,
                     metrics_paths=("metrics.jsonl",))  # fmt: skip
    made.save()
    return made


class Invented(Launcher):
    """Writes each member's record; one whose value is None fails. ``launched``: the values of every member."""

    def __init__(self, root: Path, value: Value) -> None:
        self.root, self.value = root, value
        self.launched: list[dict[str, str]] = []
        self.evaluations: Callable[[float], Sequence[tuple[int, float]]] = lambda value: ()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        pass

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return [self._one(dict(line.split("=", 1) for line in lines)) for lines in job_overrides]

    def _one(self, values: dict[str, str]) -> JobReturn:
        self.launched.append(values)
        value = self.value(values)
        if value is None:
            return JobReturn(status=JobStatus.FAILED, _return_value=AlreadyReported(2))
        invented(self.root / values["hydra.sweep.subdir"], value, accuracy=self.evaluations(value))
        return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


MakeSweep = Callable[..., tuple[Sweep, Invented]]


@pytest.fixture
def make_sweep(tmp_path: Path) -> MakeSweep:
    """``make_sweep(value, *overrides, **of_the_sweep)``: an open sweep over ``sweep/`` and its launcher."""

    def make(
        value: Value, *overrides: str, folder: str = "sweep", keep_best: str | None = None, **options: Any
    ) -> tuple[Sweep, Invented]:
        space = space_of(OverridesParser.create().parse_overrides(list(overrides)))
        launcher = Invented(tmp_path / folder, value)
        sweep = Sweep(space, SweepConfig(**{"metric": METRIC, **options}), launcher, tmp_path / folder, 1, keep_best)
        sweep.open()
        return sweep, launcher

    return make
