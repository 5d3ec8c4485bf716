"""Real instructions and responses through the command line; skipped where the material is not there."""

from __future__ import annotations

import gzip
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, SHARED, CommandLine, MakeCommandLine, Outcome

SMALL = (
    "logger=none",
    "model=small",
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=64",
    "model.architecture.num_hidden_layers=1",
    "model.architecture.num_attention_heads=2",
    "model.architecture.num_key_value_heads=2",
    "model.scratch.vocab_size=600",
    "model.scratch.sft.max_steps=2",
    "model.scratch.sft.global_batch=4",
    "model.scratch.sft.micro_batch=4",
    "train.max_steps=2",
    "train.global_batch=4",
    "train.micro_batch=2",
    "data.heldout=4",
    "data.max_skipped_share=0.9",
    "launcher.threads=1",
)


def check(outcome: Outcome, responses: int) -> None:
    """The run trained on sets of that many responses and ranked held-out ones; nothing vanished uncounted."""
    facts, skipped = outcome.result["data_facts"], outcome.result["skipped"]
    assert facts["train: sets"] > 0
    assert facts["train: responses"] == responses * facts["train: sets"]
    assert facts["train: response tokens"] > facts["train: responses"]
    assert all(count > 0 for count in skipped.values())
    assert [row["step"] for row in outcome.metrics] == [1, 2]
    assert "held-out ranking accuracy" in outcome.measures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "responses"), [("ultrafeedback", 4), ("ultrafeedback_armorm", 5), ("ultrafeedback_binarized", 2)]
)
def test_every_hub_layout_trains(shared_data: Path, command_lines: MakeCommandLine, name: str, responses: int) -> None:
    source = shared_data / "schemas" / f"{name}.jsonl"
    outcome = command_lines()(*SMALL, f"data.source={source}", f"data.layout={name}", "loss=mpo_1vsk")
    check(outcome, responses)


def test_real_response_sets_train(shared_data: Path, command_lines: MakeCommandLine) -> None:
    mpo: CommandLine = command_lines()
    with gzip.open(shared_data / "alpaca_multipref.jsonl.gz", "rt") as stream:
        (mpo.home / "some.jsonl").write_text("".join(itertools.islice(stream, 40)))
    outcome = mpo(*SMALL, "data.source=some.jsonl", "loss=wmpo", "evaluate.temperatures=[]")
    check(outcome, 8)
    baselines = {each.name for each in outcome.measures["held-out ranking accuracy"].baselines}
    assert baselines == {"before training", "longer response wins"}


def test_supervised_fine_tuning_is_judged_on_held_out_responses(
    shared_data: Path, command_lines: MakeCommandLine
) -> None:
    mpo: CommandLine = command_lines()
    with gzip.open(shared_data / "alpaca_multipref.jsonl.gz", "rt") as stream:
        (mpo.home / "some.jsonl").write_text("".join(itertools.islice(stream, 40)))
    outcome = mpo(
        *SMALL,
        "data.source=some.jsonl",
        "regime=sft",
        "evaluate.temperatures=[]",
        "train.max_steps=10",
        "train.lr=1e-2",
    )
    loss = outcome.measures["held-out loss"]
    assert loss.unit == "nats per token"
    assert 0 < loss.value < loss.baselines[0].value - 0.1


def test_golden_losses_conform() -> None:
    golden = SHARED / "golden/losses.json"
    if not golden.is_file():
        pytest.skip("no ../shared/golden beside the checkout")
    done = subprocess.run(
        [sys.executable, "-m", "mpo.losses.conformance", str(golden)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wmpo" in done.stdout
