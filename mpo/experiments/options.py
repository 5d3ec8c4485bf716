"""The command line of ``python -m mpo.experiments``: names and ``key=value``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mpo.config.wording import hint
from mpo.errors import ConfigError
from mpo.experiments.spec import names

ALL = "tables"
TUNING = "tuning"


class Where(Enum):
    """Where runs are started."""

    local = "local"
    slurm = "slurm"


@dataclass
class Options:
    """What a user can choose.

    Attributes:
        experiments: names; ``tables`` is all of them.
        scale: of ``experiments/scales``.
        units: replications; None: the scale's own number.
        jobs: runs at a time; None: one a GPU group, or as many as there are cores. More than groups share them.
        gpus: cards that a run has, where there are any; None: the scale's own number.
        launcher: this machine or Slurm.
        slurm: what submitit is given, such as partition or timeout_min.
        out: folder for pages; None: ``outputs/experiments/SCALE``.
        runs: folder of the runs; None: ``outputs/experiments/SCALE/runs``.
        overrides: of every run, which win over the experiment's and the scale's, such as ``evaluate=alpaca_eval``.
        dry_run: plan, run nothing.
        show: write pages from what is finished, run nothing.
    """

    experiments: list[str] = field(default_factory=list)
    scale: str = "micro"
    units: int | None = None
    jobs: int | None = None
    gpus: int | None = None
    launcher: Where = Where.local
    slurm: dict[str, str] = field(default_factory=dict)
    out: str | None = None
    runs: str | None = None
    overrides: list[str] = field(default_factory=list)
    dry_run: bool = False
    show: bool = False


def parse(arguments: Sequence[str]) -> Options:
    """The options of ``arguments``.

    Raises:
        ConfigError: a name or key that there is not, or a value of another type.
    """
    chosen = [one.replace("-", "_") for one in arguments if "=" not in one]
    known = {one.name for one in fields(Options)} - {"experiments"}
    dotted = [one.lstrip("-") for one in arguments if "=" in one]
    for key in (one.partition("=")[0].partition(".")[0] for one in dotted):
        if key not in known:
            raise ConfigError(f"there is no option '{key}'", "", hint(key, known))
    everything = names()
    for name in chosen:
        if name not in (*everything, ALL):
            raise ConfigError(f"there is no experiment '{name}'", "", hint(name, [*everything, ALL]))
    try:
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_dotlist(dotted)))
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).partition("\n")[0], "", "see --help") from None
    assert isinstance(found, Options)
    for key in ("units", "jobs", "gpus"):
        value = getattr(found, key)
        if value is not None and value < 1:
            raise ConfigError(f"{value} is not at least 1", key, "give a whole number")
    found.experiments = [one for one in everything if one != TUNING] if ALL in chosen else list(dict.fromkeys(chosen))
    if TUNING in found.experiments and len(found.experiments) > 1:
        raise ConfigError("is run by itself", TUNING, "run it first, then the tables, which take its rates")
    if not found.experiments:
        raise ConfigError("no experiment is named", "", f"name some of {', '.join([*everything, ALL])}")
    return found
