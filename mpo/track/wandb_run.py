"""Weights & Biases; the one place that imports it, and only when a run is logged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.errors import ConfigError
from mpo.track.logger import Identity, Logger, Run

if TYPE_CHECKING:
    import wandb

_INIT_TIMEOUT_S = 30.0


class WandbRun(Run):
    """An open W&B run, online or offline."""

    def __init__(self, run: wandb.Run) -> None:
        self._run, self._logged = run, 0
        # An axis of our own: W&B drops records whose own step goes back, and every round starts again at 1.
        run.define_metric("step")
        run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See :meth:`Run.log`. Of a run that is continued W&B drops the records that it has: their number is lower."""
        self._run.log({**metrics, "step": step}, step=self._logged)
        self._logged += 1

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """See :meth:`Run.table`."""
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def image(self, name: str, path: Path) -> None:
        """See :meth:`Run.image`."""
        import wandb

        self._run.log({name: wandb.Image(str(path))})

    def summary(self, values: Mapping[str, Any]) -> None:
        """See :meth:`Run.summary`."""
        self._run.summary.update(dict(values))

    def finish(self, failed: bool = False) -> None:
        """See :meth:`Run.finish`."""
        self._run.finish(exit_code=1 if failed else 0)


@dataclass(frozen=True)
class WandbLogger(Logger):
    """Weights & Biases, with a run's files under ``wandb/`` in its folder.

    ``WANDB_MODE=disabled``: nothing is written and wandb is not imported. Without an API key (``WANDB_API_KEY`` or
    netrc) and without ``WANDB_MODE`` the run is kept offline for ``wandb sync``. Code, git state, console output,
    requirements, host name and machine facts are never collected.
    """

    project: str = "mpo"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def open(self, identity: Identity) -> Run | None:
        """See :meth:`Logger.open`."""
        mode = os.environ.get("WANDB_MODE")
        if mode == "disabled":
            return None
        import wandb

        try:
            wandb.setup(
                settings=wandb.Settings(quiet=True, silent=True)
            )  # the login speaks before a run's settings hold
            identity.folder.mkdir(parents=True, exist_ok=True)
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
                project=self.project,
                entity=self.entity,
                group=self.group,
                tags=list(self.tags),
                name=identity.name,
                id=identity.key,
                resume="allow",
                job_type=identity.job_type,
                config=dict(identity.config),
                dir=str(identity.folder),
                mode=mode or (None if has_key() else "offline"),  # type: ignore[arg-type]
                settings=settings,
            )
        except (wandb.Error, ValueError) as error:  # a mode or tag that its settings refuse is a ValueError
            raise ConfigError(
                f"Weights & Biases did not start: {error}", "logger.wandb", "fix it, or set WANDB_MODE=offline"
            ) from error
        return WandbRun(run)


def has_key() -> bool:
    """Whether there is a key to be used, found where wandb itself will look for it."""
    import wandb
    from wandb.sdk.lib.wbauth.wbnetrc import read_netrc_auth

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return read_netrc_auth(host=wandb.setup().settings.base_url) is not None
