"""Composed YAML to the typed configuration. No torch."""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode

from mpo.config.paths import folder
from mpo.config.schema import RunConfig
from mpo.config.sweeps import check_sweep
from mpo.config.texts import check_texts
from mpo.errors import ConfigError

CONFIG_NAME = "config"
ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:")
"""An interpolation that reads a variable of the environment."""
_listed_once = functools.cache(Hydra.list_all_config_groups)
"""``--help`` lists all groups once for Hydra's own and once more for the others, which is a tenth of its time."""


def register() -> str:
    """Make Hydra know the schema and where the project's folders lie; returns the absolute ``config_path``.

    To be called before Hydra composes. Calling it again changes nothing.
    """
    Plugins.instance().register(OwnFolders)
    store = ConfigStore.instance()
    schema = OmegaConf.structured(RunConfig)
    # Which keys a partition has depends on the regime's choice; its class says so when it is made.
    OmegaConf.set_struct(schema.partition, False)
    store.store(name="schema", node=schema)
    store.repo = _Shared(store.repo)
    Hydra.list_all_config_groups = _listed_once  # type: ignore[method-assign]
    _check_sweeps()
    return str(folder("conf"))


def _check_sweeps() -> None:
    """Make Hydra's sweeper look at the values first: it would run none without a word, or list them for ever."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # here: plugins load anew what was imported

    split = BasicSweeper.split_arguments
    if getattr(split, "checks", False):
        return

    def checked(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        check_sweep(overrides)
        return split(overrides, max_batch_size)

    checked.checks = True  # type: ignore[attr-defined]
    BasicSweeper.split_arguments = staticmethod(checked)  # type: ignore[method-assign,assignment]


class OwnFolders(SearchPathPlugin):
    """Makes Hydra look into ``sweeps/`` too.

    ``hydra.searchpath`` in the configuration would be read anew for each of the hundred groups that ``--help`` lists,
    and a user's own would replace it.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("mpo", f"file://{folder('sweeps')}")


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
        ConfigError: an option of a loss, partition, sampler or scorer is taken from the environment, a value cannot be
            recorded.
        omegaconf.errors.OmegaConfBaseException: a key that the schema lacks, a wrong type, a missing value; made
            readable by :func:`mpo.config.messages.explain`.
    """
    plain = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.DICT)
    assert isinstance(plain, dict)
    for key in ("sampler", "score", "score_also", "loss", "partition", "data.source", "evaluate.measures", "logger"):
        _check_options(_at(plain, key), key)
    # Plain values, for keys that "+" has added would pass between two structured nodes unseen.
    merged = OmegaConf.merge(OmegaConf.structured(RunConfig), {k: v for k, v in plain.items() if k != "hydra"})
    _convert_taken_over(merged)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RunConfig)
    check_texts(config)
    return config


def _convert_taken_over(node: DictConfig | ListConfig) -> None:
    """Give lists and groups that interpolations lead to their own type, as OmegaConf does for single values only.

    Raises:
        omegaconf.errors.OmegaConfBaseException: the value does not fit.
    """
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        kept = node._get_node(key)
        if not isinstance(kept, (DictConfig, ListConfig)):
            continue
        if kept._is_interpolation():
            node[key] = copy.deepcopy(node[key])
        elif not (kept._is_none() or kept._is_missing()):
            _convert_taken_over(kept)


def _at(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _check_options(value: Any, where: str) -> None:
    """Options of classes, a user's own among them: they are written to reports, manifests and W&B, where no secret must
    end up."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_options(item, f"{where}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_options(item, f"{where}[{number}]")
    elif isinstance(value, str) and ENVIRONMENT.search(value):
        raise ConfigError("a variable's value would be written into reports", where,
                          "let your function read the variable itself")  # fmt: skip
