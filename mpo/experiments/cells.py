"""From an experiment and a scale to the runs that it needs. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mpo.experiments.spec import Axis, Experiment, Kind, Scale, find, read_yaml

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
    experiment: Experiment, scale_name: str, scale: Scale, units: int, tuned: dict[str, float], more: Sequence[str] = ()
) -> list[Cell]:
    """Every cell that needs a run, replication by replication.

    Args:
        tuned: learning rate of each loss, as :func:`tuned_rates` reads them.
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
                for value, of_value in (axis.overrides if axis is not None and axis.overrides else {"": []}).items():
                    wanted = [*scale.overrides, *experiment.overrides, *row.overrides, *of_scale, *of_block, *of_place,
                              *of_value]  # fmt: skip
                    overrides = _once([*_rate(wanted, tuned), *wanted, *of_unit, *more])
                    found.append(Cell(block, name, value, unit, tuple(overrides)))
    return found


def _rate(overrides: list[str], tuned: dict[str, float]) -> Iterator[str]:
    """The loss's own learning rate, first, so that every other override wins over it."""
    losses = [value for key, _, value in (one.partition("=") for one in overrides) if key == "loss"]
    if losses and losses[-1] in tuned:
        yield f"train.lr={tuned[losses[-1]]:g}"


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


def tuned_rates(scale_name: str) -> dict[str, float]:
    """Learning rates that were chosen for each loss at this scale; empty where none were."""
    path = find(f"tuned/{scale_name}.yaml")
    return {str(loss): float(rate) for loss, rate in read_yaml(path)["lr"].items()} if path is not None else {}
