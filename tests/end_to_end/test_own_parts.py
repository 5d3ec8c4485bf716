"""A loss, a partition and a scorer of one's own, a file and a YAML each outside the package; edited and run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import CommandLine

LOSS = '''
from dataclasses import dataclass
from typing import ClassVar
import torch
from mpo.losses import Loss, LossInputs
from mpo.losses.contrasts import pairwise
from mpo.losses.rewards import log_ratio


@dataclass(frozen=True)
class Hinge(Loss):
    """max(0, 1 - beta(r_w - r_b))."""

    beta: float = 0.1
    needs_reference: ClassVar[bool] = True
    default_partition: ClassVar[str] = "best_vs_worst"

    def implicit_reward(self, inputs: LossInputs) -> torch.Tensor:
        return self.beta * log_ratio(inputs)

    def per_set(self, inputs: LossInputs) -> torch.Tensor:
        return pairwise(self.implicit_reward(inputs), inputs.bins_BK, lambda gap: torch.relu(MARGIN - gap))


MARGIN = 1
'''
PARTITION = '''
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from mpo.partition import Partition, Shape


@dataclass(frozen=True)
class FirstWins(Partition):
    """The best against the worst."""

    shape: ClassVar[Shape] = Shape.pair

    def assign(self, scores, accepted=None, draw=None):
        best = max(range(len(scores)), key=lambda i: scores[i])
        worst = min(range(len(scores)), key=lambda i: (scores[i], i == best))
        return [0 if i == best else 1 if i == worst else -1 for i in range(len(scores))]
'''
SCORER = '''
from dataclasses import dataclass
from mpo.score import Item, Scorer


@dataclass(frozen=True)
class Brevity(Scorer):
    """Words that are missing to ``limit``."""

    limit: int = 20

    def score(self, items: list[Item]) -> list[float]:
        return [float(self.limit - len(each.response.content.split())) for each in items]
'''
OWN = {"loss": ("Hinge", LOSS), "partition": ("FirstWins", PARTITION), "score": ("Brevity", SCORER)}


@pytest.fixture
def command(mpo: CommandLine) -> list[str]:
    """Overrides of a run with all three, whose files lie in its working directory."""
    for group, (name, code) in OWN.items():
        (mpo.home / f"own_{group}.py").write_text(code)
        folder = mpo.home / "conf" / group
        folder.mkdir(parents=True)
        (folder / "own.yaml").write_text(f"_target_: own_{group}.{name}\n")
    allowed = ",".join(f"own_{group}" for group in OWN)
    own = [f"{group}=own" for group in OWN]
    return ["--config-dir", "conf", "regime=on_policy", *own, f"allow_targets=[{allowed}]"]


def test_they_train_from_the_command_line_and_an_edit_builds_what_it_changes(
    mpo: CommandLine, command: list[str]
) -> None:
    first = mpo.testbed(*command)
    assert {"score", "partition", "train"} <= set(first.started)  # what is sampled another test may have left
    assert {group: first.result["config"][group]["_target_"] for group in OWN} == {
        group: f"own_{group}.{name}" for group, (name, _) in OWN.items()
    }

    file = mpo.home / "own_loss.py"
    file.write_text(file.read_text().replace("MARGIN = 1", "MARGIN = 2  # wider"))
    planned = mpo.testbed(*command, "dry_run=true").planned
    again = {stage for stage, what in planned.items() if what == "build"}
    assert {"train", "evaluate/ranking"} <= again
    assert {"sample", "score", "prepare", "partition", "reference", "start/sft"} <= planned.keys() - again


@pytest.mark.slow
def test_an_edit_while_a_command_runs_stops_it_before_it_runs_the_new_code(
    mpo: CommandLine, command: list[str]
) -> None:
    process, folder = mpo.start(*mpo.smallest(*command, "seed=7"))
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "sample: started" in line:
            file = mpo.home / "own_loss.py"
            file.write_text(file.read_text().replace("MARGIN = 1", "MARGIN = 3"))
    assert process.wait() == 2
    said = "mpo: error: train: own_loss was edited after this command started; run it again"
    errors = [line for line in lines if line.startswith("mpo: error: ")]
    assert len(errors) == 1 and errors[0].startswith(said), errors
    assert not Path(folder, "result.json").exists()
