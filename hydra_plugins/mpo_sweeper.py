"""Where Hydra finds the project's sweeper: it takes plugins from ``hydra_plugins`` alone, and imports all of them for
every command, so that what they do stands elsewhere."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SettingsSweeper(Sweeper):
    """``hydra/sweeper=settings``: see :mod:`mpo.sweeps.sweeper`."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = params or {}
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over, and its launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep."""
        from mpo.sweeps.sweeper import run_sweep  # here: every command imports this file

        assert self.config is not None and self.hydra_context is not None and self.launcher is not None
        run_sweep(self.config, self.hydra_context.config_loader, self.launcher, self.params, arguments)
