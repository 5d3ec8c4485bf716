"""What a table or figure is made from: ``experiments/NAME/experiment.yaml``, and a scale it is run at. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mpo.config.paths import folder
from mpo.config.wording import hint
from mpo.errors import ConfigError

FILE = "experiment.yaml"
Loaded = TypeVar("Loaded")


class Kind(Enum):
    """How an experiment is shown: rows of numbers, a line a row over an axis, metrics over training, or no runs at
    all."""

    rows = "rows"
    lines = "lines"
    training = "training"
    simulation = "simulation"
    tuning = "tuning"


@dataclass
class Column:
    """A measured number of a run: an estimate by its metric (or the first of several, ``A|B``), split, temperature and
    judge, multiplied by ``times`` (100: percent)."""

    metric: str = MISSING
    label: str = MISSING
    split: str | None = None
    temperature: float | None = None
    judge: str | None = None
    times: float = 1.0
    decimals: int = 2


@dataclass
class Row:
    """One row or line: overrides of a run, or the starting policy that the runs have in common.

    ``round``: of an iterative run, whose rounds may be several rows. ``tried``: in place of the axis (kind ``tuning``),
    for a loss that other settings suit.
    """

    overrides: list[str] = field(default_factory=list)
    round: int | None = None
    tried: dict[str, list[str]] = field(default_factory=dict)
    starting_policy: bool = False


@dataclass
class Axis:
    """What the lines of a figure run over: overrides by value, or temperatures at which one run was evaluated.

    ``seconds``: the values are drawn at the seconds that training took there.
    """

    label: str = MISSING
    overrides: dict[str, list[str]] = field(default_factory=dict)
    temperatures: list[float] = field(default_factory=list)
    seconds: bool = False
    log: bool = False

    @property
    def values(self) -> list[str]:
        """Its values, as they are written."""
        return list(self.overrides) or [f"{value:g}" for value in self.temperatures]


@dataclass
class AtScale:
    """What an experiment does otherwise at one scale.

    Attributes:
        overrides: of every run.
        blocks: overrides by the name of a block of the table, a model say.
        rows: more overrides of a row, or of a row in one block, named as "ROW @ BLOCK".
        only: the rows that a block has, where it does not have all.
        axis: in place of the experiment's own.
        notes: said below the table.
    """

    overrides: list[str] = field(default_factory=list)
    blocks: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)
    only: dict[str, list[str]] = field(default_factory=dict)
    axis: Axis | None = None
    notes: list[str] = field(default_factory=list)

    def has(self, row: str, block: str) -> bool:
        """Whether the block has the row."""
        return block not in self.only or row in self.only[block]


@dataclass
class Experiment:
    """A table or figure.

    Attributes:
        paper: where it is published.
        published: its key in ``experiments/published.yaml``.
        overrides: of every run.
        compare: the row whose paired differences to the others are shown.
        claims: orderings of the paper, as "A > B" with names of rows; of lines at the last value of the axis, or at a
            value named as "A > B @ value".
        metrics: patterns of training metrics that are drawn (kind ``training``).
        each: each replication is a line of its own there, not their mean.
        notes: said below the table.
        scales: what is otherwise at a scale, by its name.
        not_at: scales at which it makes no sense.
        simulation: of :mod:`mpo.simulate` (kind ``simulation``).
    """

    title: str = MISSING
    paper: str = MISSING
    kind: Kind = Kind.rows
    published: str | None = None
    overrides: list[str] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    axis: Axis | None = None
    compare: str | None = None
    claims: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    each: bool = False
    notes: list[str] = field(default_factory=list)
    scales: dict[str, AtScale] = field(default_factory=dict)
    not_at: list[str] = field(default_factory=list)
    simulation: str | None = None


@dataclass
class Scale:
    """Where an experiment is run: ``experiments/scales/NAME.yaml``.

    Attributes:
        overrides: of every run.
        unit: overrides of one replication, with ``{unit}`` for its number.
        units: how many there are by default; they count from 0.
        tuning_unit: the one on which settings of the losses were chosen, in no table.
        gpus: cards of a run by default, on a machine that has any.
        columns: what is measured.
        says, silent: what this scale can tell and what it cannot.
        plan_for: launcher.device of a dry run without a card.
    """

    title: str = MISSING
    overrides: list[str] = field(default_factory=list)
    unit: list[str] = field(default_factory=list)
    units: int = 1
    gpus: int = 1
    tuning_unit: int = 100
    columns: list[Column] = field(default_factory=list)
    says: str = ""
    silent: str = ""
    plan_for: str | None = None


def roots() -> list[Path]:
    """Where experiments lie: those that ship, and ``experiments/`` in the working directory, which may add to them."""
    own = Path("experiments").resolve()
    return [folder("experiments"), *([own] if own.is_dir() and own != folder("experiments").resolve() else [])]


def find(name: str) -> Path | None:
    """The file ``name`` below one of the roots; the working directory's wins."""
    return next((path for root in reversed(roots()) if (path := root / name).is_file()), None)


def names() -> list[str]:
    """Every experiment, in the order of the papers."""
    return sorted({path.parent.name for root in roots() for path in root.glob(f"*/{FILE}")}, key=_order)


def _order(name: str) -> tuple[str, int, int, str]:
    paper, _, rest = name.partition("_")
    kind = rest.rstrip("0123456789")
    return (
        paper,
        ("table", "fig", "thm").index(kind) if kind in ("table", "fig", "thm") else 9,
        int(rest[len(kind) :] or 0),
        name,
    )


def scales() -> list[str]:
    """Every scale."""
    return sorted({path.stem for root in roots() for path in (root / "scales").glob("*.yaml")})


def load(name: str) -> Experiment:
    """The experiment ``name``, such as ``mpo_table1``; raises ConfigError where there is none or its file is wrong."""
    path = find(f"{name}/{FILE}")
    if path is None:
        raise ConfigError(f"there is no experiment '{name}'", "", hint(name, names()))
    plain = read_yaml(path)
    plain["rows"] = {str(key): _row(value) for key, value in (plain.get("rows") or {}).items()}
    found = _typed(Experiment, plain, path)
    _check(found, f"{path.parent.name}/{FILE}")
    return found


def _check(found: Experiment, where: str) -> None:
    """Raise ConfigError for what names no row, block or value of an axis."""
    axes = [found.axis, *(at.axis for at in found.scales.values())]
    values = {value for axis in axes if axis is not None for value in axis.values}
    for claim in found.claims:
        sides, _, value = (part.strip() for part in claim.partition("@"))
        unknown = [one.strip() for one in sides.split(">") if one.strip() not in found.rows]
        if unknown or sides.count(">") != 1:
            raise ConfigError(f"claim '{claim}' is not 'ROW > ROW'", where, "name two rows")
        if value and value not in values:
            raise ConfigError(f"claim '{claim}' is at no value of the axis", where, hint(value, values))
    if found.compare is not None and found.compare not in found.rows:
        raise ConfigError(f"no row '{found.compare}'", f"{where}: compare", "name a row")
    for name, row in found.rows.items():
        if row.tried and found.kind is not Kind.tuning:
            raise ConfigError(f"row '{name}' has settings of its own", f"{where}: rows", "they are for kind: tuning")
    tried = [axis.overrides for axis in axes if axis is not None] or [{}]
    for rates in tried if found.kind is Kind.tuning else ():
        if len({len(row.tried or rates) for row in found.rows.values()}) > 1:
            raise ConfigError("some rows try more settings than others", f"{where}: rows", "give each the same number")
    for scale, at in found.scales.items():
        places = {*found.rows, *(f"{row} @ {block}" for row in found.rows for block in at.blocks)}
        for name in [name for name in at.rows if name not in places]:
            raise ConfigError(f"no row '{name}'", f"{where}: scales.{scale}.rows", hint(name, places))
        for block, rows in at.only.items():
            if block not in at.blocks or not set(rows) <= set(found.rows):
                raise ConfigError(f"'{block}' is no block, or has other rows", f"{where}: scales.{scale}.only",
                                  "name blocks, and rows of the experiment")  # fmt: skip


def load_scale(name: str) -> Scale:
    """The scale ``name``; raises ConfigError where there is none or its file is wrong."""
    path = find(f"scales/{name}.yaml")
    if path is None:
        raise ConfigError(f"there is no scale '{name}'", "scale", hint(name, scales()))
    return _typed(Scale, read_yaml(path), path)


def published() -> dict[str, Any]:
    """The papers' numbers, by key."""
    path = find("published.yaml")
    return read_yaml(path) if path is not None else {}


def _row(value: Any) -> Any:
    if value is None:
        return {"starting_policy": True}
    return {"overrides": value} if isinstance(value, list) else value


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in ``path``; raises ConfigError where there is something else."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise ConfigError(f"no YAML: {what}", f"{path.parent.name}/{path.name}", "correct the file") from None
    if not isinstance(plain, dict):
        raise ConfigError("no mapping", f"{path.parent.name}/{path.name}", "write KEY: VALUE")
    return plain


def _typed(kind: type[Loaded], plain: dict[str, Any], path: Path) -> Loaded:
    try:
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), plain))
    except OmegaConfBaseException as error:
        raise ConfigError(
            str(error).partition("\n")[0], f"{path.parent.name}/{path.name}", "correct the file"
        ) from None
    assert isinstance(found, kind)
    return found
