"""Hydra's composition without its command line."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf, open_dict

from mpo.config.compose import CONFIG_NAME, register, typed
from mpo.config.schema import RunConfig


def composed(overrides: tuple[str, ...]) -> tuple[RunConfig, dict[str, Any]]:
    """The typed configuration of ``python -m mpo.run`` with ``overrides``, and the option of each group.

    Raises:
        Exception: of Hydra or OmegaConf, for what :func:`mpo.config.messages.explain` makes a line of.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=register(), version_base="1.3"):
        whole = compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)
    choices = OmegaConf.to_container(whole.hydra.runtime.choices)
    assert isinstance(choices, dict)
    with open_dict(whole):
        del whole["hydra"]
    return typed(whole), {str(key): value for key, value in choices.items()}
