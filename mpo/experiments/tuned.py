"""Settings of every loss, chosen with the same small budget at a starting policy that no table uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from mpo.cache.artifacts import write_text
from mpo.errors import DataError
from mpo.experiments.cells import Cell, axis_of, values_of
from mpo.experiments.measured import collect
from mpo.experiments.spec import Experiment, Scale, roots


def write_tuned(experiment: Experiment, cells: Sequence[Cell], scale_name: str, scale: Scale, runs: Path) -> Path:
    """Write ``tuned/SCALE.yaml`` into the last of the roots: the best setting of each loss, and all that was tried.

    Raises:
        DataError: runs are missing, or those of a loss have measured nothing.
    """
    numbers = collect(experiment, cells, scale.columns[:1], (), runs)
    if numbers.missing:
        raise DataError(f"{len(numbers.missing)} runs are missing", "tuning", "run the same command again")
    tried: dict[str, dict[str, float | None]] = {}
    for cell in cells:
        found = numbers.of((cell.block, cell.row, cell.value), scale.columns[0]).values()
        tried.setdefault(cell.row, {})[cell.value] = round(next(iter(found)), 3) if found else None  # none: diverged
    axis = axis_of(experiment, scale_name)
    chosen = {}
    for loss, settings in tried.items():
        measured = {setting: value for setting, value in settings.items() if value is not None}
        if not measured:
            raise DataError(
                f"no setting of {loss} has a finite {scale.columns[0].label}", "tuning", "look into its runs"
            )
        best = max(measured, key=lambda setting: measured[setting])
        chosen[loss] = list(values_of(experiment.rows[loss], axis)[best])  # else YAML would refer from one to another
    reports = list(numbers.runs.values())
    path = roots()[-1] / "tuned" / f"{scale_name}.yaml"
    budget, by = len(next(iter(tried.values()))), scale.columns[0].label
    commits = ", ".join(sorted({report.commit for report in reports}))
    head = (
        f"# Setting of each loss: the best of {budget} by {by} at unit {scale.tuning_unit}, in no table.\n"
        f"# `make tuning SCALE={scale_name}`; commit {commits}.\n"
    )
    body = yaml.safe_dump({"chosen": chosen, "tried": tried}, sort_keys=False)
    write_text(path, head + body)
    return path
