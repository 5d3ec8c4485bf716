"""Composing as the command line does it, without Hydra's own error reports."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mpo.config.compose import CONFIG_NAME, register, typed
from mpo.config.messages import explain_composition
from mpo.config.paths import groups
from mpo.config.schema import RunConfig
from mpo.errors import UserError

Compose = Callable[..., DictConfig]
Load = Callable[..., RunConfig]
MISSING = ("data.source", "sampler.urls", "score.path", "score.function", "partition.path")
COMPOSED = ("+score@", "~", *(f"{group}=" for group in [*groups(), "train/lora", *MISSING]))


_registered = functools.cache(register)


@functools.cache  # a quarter of a second each, and many tests look at the same one
def _compose(*overrides: str) -> DictConfig:
    with initialize_config_dir(_registered(), version_base="1.3"):
        return compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)


@pytest.fixture
def composed() -> Compose:
    """``composed(*overrides)``: the composed configuration, not to be changed."""
    return _compose


@pytest.fixture
def load(composed: Compose) -> Load:
    """``load(*overrides)``: the typed configuration; a user's mistake is raised as the command line words it."""

    def typed_or_told(*overrides: str) -> RunConfig:
        try:
            return typed(composed(*overrides))
        except Exception as error:
            explained = explain_composition(error)
            if explained is None:
                raise
            raise explained from error

    return typed_or_told


@pytest.fixture
def changed(load: Load) -> Load:
    """``changed(*overrides)``: as ``load``, but most values are set after composing the groups, which is faster."""

    def set_values(*overrides: str) -> RunConfig:
        values = [override for override in overrides if not override.startswith(COMPOSED)]
        config = load(*(override for override in overrides if override not in values))
        result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config), OmegaConf.from_dotlist(values)))
        assert isinstance(result, RunConfig)
        return result

    return set_values


@pytest.fixture
def explained(load: Load) -> Callable[..., UserError]:
    """``told(*overrides)``: the error that composing these must end with."""

    def error_of(*overrides: str) -> UserError:
        with pytest.raises(UserError) as caught:
            load(*overrides)
        return caught.value

    return error_of


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that is there and not empty."""
    path = tmp_path_factory.mktemp("data") / "sets.jsonl"
    path.write_text('{"prompt": "p", "responses": []}\n')
    return str(path)
