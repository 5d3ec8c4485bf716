"""What finished runs have measured, for the cells of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpo.evaluate.records import Estimate
from mpo.experiments.cells import Cell
from mpo.experiments.execute import is_finished
from mpo.experiments.spec import Column, Experiment
from mpo.report.records import RunReport

START, EVEN = "starting policy", "even"
Place = tuple[str, str, str]
"""Block, row and value of the axis."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Measured numbers of a table: by place, column and replication; the runs behind them."""

    values: Mapping[Place, Mapping[str, Mapping[int, float]]]
    runs: Mapping[str, RunReport]
    missing: Sequence[Cell]

    def of(self, place: Place, column: Column) -> dict[int, float]:
        """By replication; empty where nothing was measured."""
        return dict(self.values.get(place, {}).get(column.label, {}))


def collect(
    experiment: Experiment, cells: Sequence[Cell], columns: Sequence[Column], temperatures: Sequence[float], runs: Path
) -> Numbers:
    """Read the results of ``cells`` from the folders in ``runs``.

    ``temperatures``: where they are the axis, each run gives one value for each of them.
    """
    reports = {key: RunReport.load(runs / key) for key in sorted({c.key for c in cells}) if is_finished(runs / key)}
    values: dict[Place, dict[str, dict[int, float]]] = {}
    starting = [name for name, row in experiment.rows.items() if row.starting_policy]
    for cell in cells:
        report = reports.get(cell.key)
        if report is None:
            continue
        row = experiment.rows[cell.row]
        for temperature in temperatures or (None,):
            value = cell.value if temperature is None else f"{temperature:g}"
            for column in columns:
                found = _find(report, column, temperature, row.round)
                if found is None:
                    continue
                place = values.setdefault((cell.block, cell.row, value), {})
                place.setdefault(column.label, {})[cell.unit] = found.value * column.times
                names = (START, EVEN) if found.baseline == START else (START,)  # a win rate over itself is even
                base = next((one for one in found.baselines if one.name in names), None)
                for name in starting if base is not None else ():
                    start = values.setdefault((cell.block, name, value), {}).setdefault(column.label, {})
                    start[cell.unit] = base.value * column.times  # type: ignore[union-attr]
    return Numbers(values, reports, [cell for cell in cells if cell.key not in reports])


def _find(report: RunReport, column: Column, temperature: float | None, number: int | None) -> Estimate | None:
    wanted = column.temperature if temperature is None or column.temperature is None else temperature
    return next(
        (
            one
            for metric in column.metric.split("|")
            for one in report.evaluation
            if one.metric == metric
            and (column.split is None or one.split == column.split)
            and (wanted is None or one.temperature == wanted)
            and (column.judge is None or one.judge == column.judge)
            and one.round == number
            and math.isfinite(one.value)
        ),
        None,
    )


def seconds_of_training(numbers: Numbers, cells: Sequence[Cell]) -> dict[Place, float]:
    """Mean seconds that training took at each place, as the runs that built it say."""
    found: dict[Place, list[float]] = {}
    for cell in cells:
        report = numbers.runs.get(cell.key)
        if report is not None:
            seconds = sum(stage.seconds for stage in report.stages if stage.name.rpartition("/")[2] == "train")
            found.setdefault((cell.block, cell.row, cell.value), []).append(seconds)
    return {place: sum(each) / len(each) for place, each in found.items()}
