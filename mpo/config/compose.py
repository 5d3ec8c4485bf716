"""Composed YAML to the typed configuration. No torch."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, SCMode

from mpo.config.paths import folder
from mpo.config.schema import RunConfig

CONFIG_NAME = "config"


def register() -> str:
    """Make Hydra know the schema and where the project's folders lie; returns the absolute ``config_path``.

    To be called before Hydra composes. Calling it again changes nothing.
    """
    OmegaConf.register_new_resolver("mpo_folder", lambda name: str(folder(name)), replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=RunConfig)
    store.repo = _Shared(store.repo)
    return str(folder("conf"))


class _Shared(dict[str, Any]):
    """The config store's content, not copied along with what holds it.

    Hydra copies its repository, the store included, for every group that ``--help`` lists, which took two seconds. It
    needs no copy: what is loaded from the store is copied then.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def typed(cfg: DictConfig) -> RunConfig:
    """The run's configuration with every interpolation resolved.

    Raises:
        omegaconf.errors.OmegaConfBaseException: a key that the schema lacks, a wrong type, a missing value; made
            readable by :func:`mpo.config.messages.explain`.
    """
    plain = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.DICT)
    assert isinstance(plain, dict)
    # Plain values, for keys that "+" has added would pass between two structured nodes unseen.
    merged = OmegaConf.merge(OmegaConf.structured(RunConfig), {k: v for k, v in plain.items() if k != "hydra"})
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RunConfig)
    return config
