"""From an experiment and a scale to the runs that it needs. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mpo.errors import ConfigError
from mpo.experiments.spec import Axis, Experiment, Kind, Row, Scale, find, read_yaml

Settings = dict[str, list[str]]
"""Overrides by loss."""

WHOLE = ""
"""The block of a table that has one only."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a table or figure: the run behind it, in one replication.

    Attributes:
        value: of the axis; '' without one, or where the axis is one of the same run's evaluation.
        overrides: of ``python -m mpo.run``, each key once.
    """

    block: str
    row: str
    value: str
    unit: int
    overrides: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the run's folder: equal for equal overrides, so that tables share runs."""
        return hashlib.sha256("\n".join(sorted(self.overrides)).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """For people."""
        return " · ".join(part for part in (self.block, self.row, self.value, f"unit {self.unit}") if part)


def axis_of(experiment: Experiment, scale_name: str) -> Axis | None:
    """The axis at this scale."""
    at = experiment.scales.get(scale_name)
    return at.axis if at is not None and at.axis is not None else experiment.axis


def cells_of(
    experiment: Experiment, scale_name: str, scale: Scale, units: int, tuned: Settings, more: Sequence[str] = ()
) -> list[Cell]:
    """Every cell that needs a run, replication by replication.

    Args:
        tuned: what was chosen for each loss, as :func:`tuned_settings` reads it.
        more: overrides of every run that win over all others.
    """
    at = experiment.scales.get(scale_name)
    axis = axis_of(experiment, scale_name)
    found = []
    numbers: Iterable[int] = [scale.tuning_unit] if experiment.kind is Kind.tuning else range(units)
    for unit in numbers:
        of_unit = [override.format(unit=unit) for override in scale.unit]
        for block, of_block in ((at.blocks if at is not None else {}) or {WHOLE: []}).items():
            for name, row in experiment.rows.items():
                if row.starting_policy or (at is not None and not at.has(name, block)):
                    continue
                of_scale = [*at.overrides, *at.rows.get(name, [])] if at is not None else []
                of_place = at.rows.get(f"{name} @ {block}", []) if at is not None else []
                for value, of_value in values_of(row, axis).items():
                    wanted = [*scale.overrides, *experiment.overrides, *row.overrides, *of_scale, *of_block, *of_place,
                              *of_value]  # fmt: skip
                    overrides = _once([*_tuned(wanted, tuned), *wanted, *of_unit, *more])
                    found.append(Cell(block, name, value, unit, tuple(overrides)))
    return found


def values_of(row: Row, axis: Axis | None) -> dict[str, list[str]]:
    """Overrides of the row's runs by value of the axis: one run, '', where it has none."""
    return row.tried or (axis.overrides if axis is not None else {}) or {"": []}


def _tuned(overrides: list[str], tuned: Settings) -> list[str]:
    """What was chosen for the loss, first, so that every other override wins over it."""
    losses = [value for key, _, value in (one.partition("=") for one in overrides) if key == "loss"]
    return tuned.get(losses[-1], []) if losses else []


def _once(overrides: list[str]) -> list[str]:
    """The last override of each key, in the order of their first."""
    last: dict[str, str] = {}
    for override in overrides:
        last[override.lstrip("+").partition("=")[0]] = override
    return list(last.values())


def by_run(cells: Iterable[Cell]) -> dict[str, Cell]:
    """The first cell of each run."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(cell.key, cell)
    return found


def tuned_settings(scale_name: str) -> Settings:
    """What was chosen for each loss at this scale; empty where nothing was.

    Raises:
        ConfigError: the file is not one that :func:`mpo.experiments.tuned.write_tuned` wrote.
    """
    path = find(f"tuned/{scale_name}.yaml")
    if path is None:
        return {}
    chosen = read_yaml(path).get("chosen")
    if not isinstance(chosen, dict) or not all(isinstance(each, list) for each in chosen.values()):
        where = f"tuned/{scale_name}.yaml"
        raise ConfigError("has no overrides by loss under 'chosen'", where, f"make tuning SCALE={scale_name}")
    return {str(loss): [str(one) for one in overrides] for loss, overrides in chosen.items()}
