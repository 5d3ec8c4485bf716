"""What alignment costs or brings elsewhere: tasks of EleutherAI's lm-evaluation-harness. No torch until it measures."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mpo.engine import check_installed
from mpo.errors import ConfigError
from mpo.evaluate.lm_eval.options import WHERE, Backend, Options
from mpo.evaluate.policy_measure import PolicyFiles, PolicyMeasure
from mpo.evaluate.records import PolicyResult


@dataclass(frozen=True)
class LMEval(Options, PolicyMeasure):
    """Tasks of ``lm_eval``, each metric with the package's standard error, and the change from the starting policy."""

    files: ClassVar[frozenset[str]] = frozenset({"include_path"})
    change_nothing: ClassVar[frozenset[str]] = frozenset({"gpu_memory"})

    def check(self) -> None:
        """See :meth:`Measure.check`; which tasks there are is seen when they are loaded, before the training."""
        if importlib.util.find_spec("lm_eval") is None:
            raise ConfigError("lm-eval is not installed", WHERE, "pip install 'mpo[eval]'")
        if self.backend is Backend.vllm:
            check_installed(f"{WHERE}.backend", "backend=hf")
            try:
                importlib.metadata.version("vllm")
            except importlib.metadata.PackageNotFoundError:
                what = "lm_eval knows vLLM by the package vllm alone, not by its CPU build"
                raise ConfigError(what, f"{WHERE}.backend", "take backend=hf") from None

    def measure_policy(self, policy: PolicyFiles, folder: Path) -> list[PolicyResult]:
        """See :meth:`PolicyMeasure.measure_policy`; raises as :func:`mpo.evaluate.lm_eval.tasks.run_tasks`."""
        from mpo.evaluate.lm_eval.tasks import run_tasks

        return run_tasks(self, policy, folder)
