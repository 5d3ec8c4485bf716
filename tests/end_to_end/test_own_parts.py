"""Parts of one's own, a file and a YAML each outside the package: all of them in one run, then one is edited."""

from __future__ import annotations

import json
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
SOURCE = '''
import itertools
from dataclasses import dataclass
from mpo.testbed.source import World


@dataclass(frozen=True)
class EverySecond(World):
    """Every second prompt of the testbed."""

    @property
    def name(self) -> str:
        return "every second prompt"

    def read_sets(self, rounds, on_problem):
        return itertools.islice(World.read_sets(self, rounds, on_problem), 0, None, 2)
'''
MEASURE = '''
from dataclasses import dataclass
from typing import ClassVar
from mpo.evaluate import Estimate, Evidence, Findings, Measure


@dataclass(frozen=True)
class Starts(Measure):
    """Share of responses that begin with ``word``."""

    word: str = "the"
    needs_samples: ClassVar[bool] = True

    def measure(self, evidence: Evidence) -> Findings:
        found = []
        for samples in evidence.samples:
            texts = [each.text for one in samples.policy for each in one.responses]
            share = sum(text.startswith(self.word) for text in texts) / len(texts)
            found.append(Estimate("starts_with", share, n=len(texts), temperature=samples.temperature))
        return Findings(found)
'''
SAMPLER = '''
import random
from contextlib import contextmanager
from dataclasses import dataclass
from mpo.sample import Drawn, Sampler


@dataclass(frozen=True)
class Monkey(Sampler):
    """Types ``words`` words of the testbed's vocabulary, or one more."""

    words: int = 6

    @contextmanager
    def open(self, job):
        yield lambda requests: [[self.one(job, seed) for seed in each.seeds] for each in requests]

    def one(self, job, seed):
        random_ = random.Random(seed)
        ids = [random_.randrange(6, 111) for _ in range(self.words + random_.randrange(2))]
        return Drawn([*ids, job.stop_token_ids[0]], finished=True)
'''
REGIME = """
# @package _global_
regime:
  name: own
  samples: true
  reference: starting
rounds: 2
round_lr: [1.0, 0.5]
round_beta: [1.0, 2.0]
"""
CODE = {"loss": LOSS, "partition": PARTITION, "score": SCORER, "data": SOURCE, "evaluate": MEASURE, "sampler": SAMPLER}
YAML = {
    "loss": "_target_: own_loss.Hinge\nbeta: 0.1\n",
    "partition": "_target_: own_partition.FirstWins\n",
    "score": "_target_: own_score.Brevity\n",
    "data": "defaults: [testbed, _self_]\nsource: {_target_: own_data.EverySecond}\n",
    "evaluate": "defaults: [testbed, _self_]\nmeasures: {starts: {_target_: own_evaluate.Starts, word: a}}\n",
    "sampler": "_target_: own_sampler.Monkey\nwords: 5\n",
    "regime": REGIME,
}


@pytest.fixture
def command(mpo: CommandLine) -> list[str]:
    """Overrides of a run with all of them, whose files lie in its working directory."""
    for group, code in CODE.items():
        (mpo.home / f"own_{group}.py").write_text(code)
    for group, text in YAML.items():
        folder = mpo.home / "conf" / group
        folder.mkdir(parents=True)
        (folder / "own.yaml").write_text(text)
    allowed = ",".join(f"own_{group}" for group in CODE)
    return ["--config-dir", "conf", *(f"{group}=own" for group in YAML), f"allow_targets=[{allowed}]"]


def test_they_run_from_the_command_line_and_an_edit_builds_what_it_changes(
    mpo: CommandLine, command: list[str]
) -> None:
    first = mpo.testbed(*command)
    config = first.result["config"]
    named = {group: config[group]["_target_"] for group in ("loss", "partition", "score", "sampler")}
    assert named == {
        "loss": "own_loss.Hinge", "partition": "own_partition.FirstWins", "score": "own_score.Brevity",
        "sampler": "own_sampler.Monkey",
    }  # fmt: skip
    assert first.result["data_facts"]["source"] == "every second prompt"
    assert first.result["data_facts"]["train: sets"] == 16  # every second one of 16 prompts for each of two rounds
    own = [each for each in first.result["evaluation"] if each["metric"] == "starts_with"]
    assert [(each["round"], each["temperature"], each["n"]) for each in own] == [(1, 1.0, 16), (2, 1.0, 16)]

    lengths = first.result["distributions"][-1]["series"]["trained policy"]
    assert {*lengths} == {5.0, 6.0}

    stages = {row["name"]: Path(row["path"]) for row in first.result["stages"]}
    read = {name: json.loads((folder / "stage.json").read_text()) for name, folder in stages.items()}
    start = str(stages["start/sft"])
    assert read["round2/sample"]["inputs"]["policy"]["folder"] == str(stages["round1/train"])
    assert read["round1/reference"]["inputs"]["policy"]["folder"] == start
    assert "round2/reference" not in stages or read["round2/reference"]["inputs"]["policy"]["folder"] == start
    assert [read[f"round{n}/train"]["config"]["loss"]["beta"] for n in (1, 2)] == [0.1, 0.2]

    file = mpo.home / "own_loss.py"
    file.write_text(file.read_text().replace("MARGIN = 1", "MARGIN = 2  # wider"))
    planned = mpo.testbed(*command, "dry_run=true").planned
    again = {stage for stage, what in planned.items() if what == "build"}
    assert {"round1/train", "round1/evaluate/ranking", "round2/train"} <= again
    assert {"start/sft", *(f"round1/{name}" for name in ("sample", "score", "prepare", "partition", "reference"))} <= (
        planned.keys() - again
    )


@pytest.mark.slow
def test_an_edit_while_a_command_runs_stops_it_before_it_runs_the_new_code(
    mpo: CommandLine, command: list[str]
) -> None:
    process, folder = mpo.start(*mpo.smallest(*command, "seed=7"))
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "round1/sample: started" in line:
            file = mpo.home / "own_loss.py"
            file.write_text(file.read_text().replace("MARGIN = 1", "MARGIN = 3"))
    assert process.wait() == 2
    said = "mpo: error: round1/train: own_loss was edited after this command started; run it again"
    errors = [line for line in lines if line.startswith("mpo: error: ")]
    assert len(errors) == 1 and errors[0].startswith(said), errors
    assert not Path(folder, "result.json").exists()
