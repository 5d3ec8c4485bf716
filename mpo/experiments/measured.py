"""What finished runs have measured, for the cells of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpo.evaluate.records import Estimate
from mpo.experiments.cells import Cell
from mpo.experiments.execute import result_of
from mpo.experiments.spec import Column, Experiment
from mpo.report.records import RunReport

START, EVEN = "starting policy", "even"
Place = tuple[str, str, str]
"""Block, row and value of the axis."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Measured numbers of a table: by place, column and replication; the runs behind them.

    Attributes:
        missing: cells whose run is not finished.
        lacking: by column that it lacks, how many finished cells there are of that kind.
        chosen: by column to which several estimates of a run fit, the first of them, which was taken.
    """

    values: Mapping[Place, Mapping[str, Mapping[int, float]]]
    runs: Mapping[str, RunReport]
    missing: Sequence[Cell]
    lacking: Mapping[str, int]
    chosen: Mapping[str, str]

    def of(self, place: Place, column: Column) -> dict[int, float]:
        """By replication; empty where nothing was measured."""
        return dict(self.values.get(place, {}).get(column.label, {}))


def collect(
    experiment: Experiment, cells: Sequence[Cell], columns: Sequence[Column], temperatures: Sequence[float], runs: Path
) -> Numbers:
    """Read the results of ``cells`` from the folders in ``runs``.

    ``temperatures``: where they are the axis, each run gives one value for each of them.
    """
    read = {key: result_of(runs / key) for key in sorted({cell.key for cell in cells})}
    reports = {key: report for key, report in read.items() if report is not None}
    lacking: dict[str, int] = {}
    chosen: dict[str, str] = {}
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
                fitting = _fitting(report, column, temperature, row.round)
                if not fitting:
                    lacking[column.label] = lacking.get(column.label, 0) + 1
                    continue
                found = fitting[0]
                if len(fitting) > 1:
                    chosen[column.label] = found.key
                place = values.setdefault((cell.block, cell.row, value), {})
                place.setdefault(column.label, {})[cell.unit] = found.value * column.times
                names = (START, EVEN) if found.baseline == START else (START,)  # a win rate over itself is even
                base = next((one for one in found.baselines if one.name in names), None)
                for name in starting if base is not None else ():
                    start = values.setdefault((cell.block, name, value), {}).setdefault(column.label, {})
                    start[cell.unit] = base.value * column.times  # type: ignore[union-attr]
    return Numbers(values, reports, [cell for cell in cells if cell.key not in reports], lacking, chosen)


def _fitting(report: RunReport, column: Column, temperature: float | None, number: int | None) -> list[Estimate]:
    """Finite estimates of the first of the column's metrics that has any; without a round those of the last."""
    wanted = column.temperature if temperature is None else temperature
    last = max((one.round for one in report.evaluation if one.round is not None), default=None)
    for metric in column.metric.split("|"):
        found = [
            one
            for one in report.evaluation
            if one.metric == metric
            and (column.split is None or one.split == column.split)
            and (wanted is None or one.temperature == wanted)
            and (column.judge is None or one.judge == column.judge)
            and one.round == (last if number is None else number)
            and math.isfinite(one.value)
        ]
        if found:
            return found
    return []


def seconds_of_training(numbers: Numbers, cells: Sequence[Cell]) -> dict[Place, float]:
    """Mean seconds that training took at each place, as the runs that built it say."""
    found: dict[Place, list[float]] = {}
    for cell in cells:
        report = numbers.runs.get(cell.key)
        if report is not None:
            seconds = sum(stage.seconds for stage in report.stages if stage.name.rpartition("/")[2] == "train")
            found.setdefault((cell.block, cell.row, cell.value), []).append(seconds)
    return {place: sum(each) / len(each) for place, each in found.items()}
