"""Finished runs of the smallest testbed, and copies of their caches that lack some stages."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.conftest import MakeCommandLine, Outcome
from tests.end_to_end.runs import Server

CHECKPOINT_EVERY = 2
SHORT = (
    "logger=none",
    "train.max_steps=null",
    "train.epochs=6",
    f"train.checkpoint_every={CHECKPOINT_EVERY}",
    "data.source.demonstrations=120",
    "model.scratch.sft.max_steps=8",
    "model.scratch.sft.checkpoint_every=2",
    "evaluate.samples=1",
)
"""Twelve steps of training, checkpoints often, hardly any evaluation."""
TWO_PROCESSES = ("launcher.processes=2", "model.scratch.sft.micro_batch=12")
RUNS = {
    "off-policy": (),
    "on-policy, two processes": ("regime=on_policy", *TWO_PROCESSES),
    "iterative": ("regime=iterative", "rounds=2", "train.epochs=3", "data.source.prompts=12"),
    "off-policy, two processes": TWO_PROCESSES,
}
"""Further overrides of the runs that are disturbed."""
VLLM = "iterative, vLLM"
WITH_VLLM = (*RUNS["iterative"], "sampler=vllm", "sampler.eager=true", "evaluate.temperatures=[]")


@dataclass(frozen=True)
class Finished:
    """An undisturbed run: its overrides, what it left behind, and its stages in order, (name, path, seconds)."""

    arguments: tuple[str, ...]
    outcome: Outcome
    cache: Path

    @property
    def stages(self) -> list[tuple[str, Path, float]]:
        return [(row["name"], Path(row["path"]), row["seconds"]) for row in self.outcome.result["stages"]]

    @property
    def processes(self) -> int:
        return 2 if "launcher.processes=2" in self.arguments else 1

    def copy(self, cache: Path, without: set[str]) -> Path:
        """A cache with all stages but those named; files are hard links, so replace them, never write into them."""
        dropped = {path for name, path, _ in self.stages if name in without}
        for _, path, _ in self.stages:
            target = cache / path.parent.name / path.name
            if path not in dropped and not target.exists():
                shutil.copytree(path, target, copy_function=os.link)
        for folder in ("machine", "hashes"):
            if (self.cache / folder).is_dir():
                shutil.copytree(self.cache / folder, cache / folder, copy_function=os.link)
        return cache


def finish(server: Server, command_lines: MakeCommandLine, *overrides: str) -> Finished:
    """Run the testbed undisturbed in a cache of its own."""
    command_line = command_lines()
    chosen = command_line.smallest(*SHORT, *overrides)
    outcome = server.start(command_line, chosen).outcome()
    assert outcome.code == 0, outcome.err
    return Finished(chosen, outcome, command_line.cache)
