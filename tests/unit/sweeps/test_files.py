"""Every search space of sweeps/ composes, begins with what it is, and its values can be run."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from mpo.cache.artifacts import Store
from mpo.config.compose import CONFIG_NAME, register, typed
from mpo.config.paths import folder
from mpo.errors import ConfigError
from mpo.pipeline.regimes import compose
from mpo.pipeline.rules import validate
from mpo.sweeps.check import check_values
from mpo.sweeps.methods import check_method
from mpo.sweeps.space import Space, space_of

FILES = sorted((folder("sweeps") / "sweep").glob("*.yaml"))


@pytest.fixture(scope="module")
def hydra() -> Iterator[Hydra]:
    with initialize_config_dir(register(), version_base="1.3"):
        made = GlobalHydra.instance().hydra
        assert made is not None
        yield made


def composed(hydra: Hydra, name: str, *arguments: str) -> tuple[DictConfig, Space]:
    lines = [f"+sweep={name}", *arguments]
    config = hydra.compose_config(CONFIG_NAME, lines, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    params = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
    return config, space_of(
        OverridesParser.create(config_loader=hydra.config_loader).parse_overrides([*params, *lines])
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_search_space_composes(hydra: Hydra, path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()
    assert first == "# @package _global_" and second.startswith("# ") and second.endswith(".")
    config, space = composed(hydra, path.stem)
    sweep = typed(config).sweep
    check_method(space, sweep)
    assert sweep.metric == "heldout/true_reward@1"
    assert config.hydra.sweeper["_target_"] == "hydra_plugins.mpo_sweeper.SettingsSweeper"
    assert config.hydra.mode is RunMode.MULTIRUN and f"+sweep={path.stem}" in space.fixed


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_values_can_be_run(hydra: Hydra, path: Path) -> None:
    config, space = composed(hydra, path.stem)
    check_values(space, config, hydra.config_loader)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["loss.beta=0.1,-1"], "loss.beta: .*positive"),
        (["loss.beta=interval(1,2e6)"], "loss.beta: "),
    ],
)
def test_every_value_is_checked_before_anything_runs(hydra: Hydra, arguments: list[str], said: str) -> None:
    config, space = composed(hydra, "beta", "seed=0", *arguments)
    with pytest.raises(ConfigError, match=said):
        check_values(space, config, hydra.config_loader)


def test_twelve_settings_of_beta_and_alpha_share_one_reference_pass(hydra: Hydra, tmp_path: Path) -> None:
    config, space = composed(hydra, "beta_alpha")
    base = typed(config)
    built: dict[str, set[str]] = {}
    for beta, alpha in itertools.product(*(axis.values for axis in space.axes)):
        member = dataclasses.replace(base, loss={**base.loss, "beta": float(beta), "alpha": float(alpha)})
        store = Store(tmp_path)
        for stage in compose(member, validate(member).loss).stages(store):
            built.setdefault(stage.name, set()).add(store.fingerprint(stage))
    counts = Counter({name: len(marks) for name, marks in built.items()})
    assert space.grid_size == 12 and counts["reference"] == counts["sample"] == counts["prepare"] == 1
    assert counts["train"] == 12
