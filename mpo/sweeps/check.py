"""Each value of a sweep composed and checked before its first member runs."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from mpo.config.compose import typed
from mpo.config.files import with_own_shape
from mpo.config.schema import RunConfig
from mpo.pipeline.rules import validate
from mpo.sweeps.space import Space


def check_values(space: Space, config: DictConfig, loader: ConfigLoader) -> RunConfig:
    """Check each value once, beside the first of the others; returns the first member's configuration.

    Which values fit together only their member can tell; it fails alone.

    Args:
        config: the composed configuration without what varies.
        loader: composes the members.

    Raises:
        ConfigError: some value cannot be run.
        DataError: a data file is missing.
    """

    def checked(setting: Sequence[str], seed: str) -> RunConfig:
        made = with_own_shape(typed(loader.load_sweep_config(config, space.overrides(setting, seed))))
        validate(made)
        return made

    first = [axis.ends[0] for axis in space.axes]
    made = checked(first, space.seeds[0])
    for place, axis in enumerate(space.axes):
        for value in axis.ends[1:]:
            checked([*first[:place], value, *first[place + 1 :]], space.seeds[0])
    for seed in space.seeds[1:]:
        checked(first, seed)
    return made
