"""Weights & Biases; the one place that imports it, and only when a run is logged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.config.schema import LoggerConfig
from mpo.errors import ConfigError

if TYPE_CHECKING:
    import wandb

_INIT_TIMEOUT_S = 30.0


class NullRun:
    """A run that is logged nowhere; the same methods as :class:`Run`."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...
    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def image(self, name: str, path: Path) -> None: ...
    def summary(self, values: Mapping[str, Any]) -> None: ...
    def finish(self, failed: bool = False) -> None: ...


class Run:
    """An open W&B run, online or offline."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        # An axis of our own: W&B drops records whose own step goes back, and every round starts again at 1.
        run.define_metric("step")
        run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs numbers at an optimizer step."""
        self._run.log({**metrics, "step": step})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs a table, e.g. of sampled texts."""
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def image(self, name: str, path: Path) -> None:
        """Logs a picture file."""
        import wandb

        self._run.log({name: wandb.Image(str(path))})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets the run's final numbers."""
        self._run.summary.update(dict(values))

    def finish(self, failed: bool = False) -> None:
        """Writes everything out and closes the run."""
        self._run.finish(exit_code=1 if failed else 0)


def open_run(
    config: LoggerConfig, run_config: Mapping[str, Any], run_dir: Path, name: str, job_type: str
) -> Run | NullRun:
    """Starts a W&B run, with its files under ``run_dir/wandb``.

    ``WANDB_MODE=disabled`` or ``logger.wandb=false``: nothing is written and wandb is not imported. Without an API key
    (``WANDB_API_KEY`` or netrc) and without ``WANDB_MODE`` the run is kept offline for ``wandb sync``. Code, git state,
    console output, requirements, host name and machine facts are never collected.

    Raises:
        ConfigError: W&B refused or could not be reached.
    """
    mode = os.environ.get("WANDB_MODE")
    if not config.wandb or mode == "disabled":
        return NullRun()
    import wandb

    try:
        wandb.setup(settings=wandb.Settings(quiet=True, silent=True))  # the login speaks before a run's settings hold
        run_dir.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off",
            disable_git=True,
            host="",
            init_timeout=_INIT_TIMEOUT_S,
            quiet=True,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        run = wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            tags=list(config.tags),
            name=name,
            job_type=job_type,
            config=dict(run_config),
            dir=str(run_dir),
            mode=mode or (None if has_key() else "offline"),  # type: ignore[arg-type]
            settings=settings,
        )
    except (wandb.Error, ValueError) as error:  # a mode or tag that its settings refuse is a ValueError
        raise ConfigError(
            f"Weights & Biases did not start: {error}", "logger.wandb", "fix it, or set WANDB_MODE=offline"
        ) from error
    return Run(run)


def has_key() -> bool:
    """Whether there is a key to be used, found where wandb itself will look for it."""
    import wandb
    from wandb.sdk.lib.wbauth.wbnetrc import read_netrc_auth

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return read_netrc_auth(host=wandb.setup().settings.base_url) is not None
