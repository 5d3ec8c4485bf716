"""A run as users have it: in a new interpreter, with Weights & Biases, whose own file without a key is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import MakeCommandLine, Outcome
from tests.wandb_file import records


def logged(folder: Path) -> list[Any]:
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return list(records(file))


def history(found: list[Any]) -> list[dict[str, Any]]:
    rows = [record.history.item for record in found if record.WhichOneof("record_type") == "history"]
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row} for row in rows]


@pytest.fixture(scope="module")
def users_run(first_run: Outcome, command_lines: MakeCommandLine, shared_cache: Path) -> Outcome:
    """A training and its evaluation, from the first run's data."""
    return command_lines(shared_cache, WANDB_MODE="offline").testbed("loss.alpha=1", fork=False)


def test_a_run_prints_nothing_of_its_libraries(users_run: Outcome) -> None:
    assert "Warning" not in users_run.err + users_run.out
    assert users_run.out == ""


def test_a_changed_loss_parameter_redoes_only_what_depends_on_it(first_run: Outcome, users_run: Outcome) -> None:
    measures = {"evaluate/win_rate", "evaluate/ranking", "evaluate/examples"}
    dependent = {"train", "evaluate/policy@1", "evaluate/policy@1/score", *measures}
    assert {name for name, fate in users_run.planned.items() if fate == "build"} == dependent
    assert set(users_run.started) == dependent
    assert users_run.weights != first_run.weights


def test_the_offline_run_holds_config_history_summary_and_texts(users_run: Outcome) -> None:
    found = logged(users_run.folder)
    (opened,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    config = {update.key: json.loads(update.value_json) for update in opened.config.update}
    assert config["loss"]["_target_"] == "mpo.losses.WMPO"
    assert config["train"]["global_batch"] == 8
    rows = history(found)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert losses == [(row["step"], row["loss"]) for row in users_run.metrics]
    start = [row["step"] for row in rows if "start/loss" in row]
    assert start == list(range(1, len(start) + 1)) and start
    summary: dict[str, Any] = {}
    for record in found:
        if record.WhichOneof("record_type") == "summary":
            summary |= {update.key: json.loads(update.value_json) for update in record.summary.update}
    reward = users_run.measures["true reward at T=1"]
    assert summary["heldout/true_reward@1"] == reward.value
    assert summary["heldout/true_reward@1/standard_error"] == reward.standard_error
    (table,) = users_run.folder.glob("wandb/offline-run-*/files/media/table/samples*.json")
    assert json.loads(table.read_text())["columns"] == ["prompt", "before", "after", "score before", "score after"]
    (table,) = users_run.folder.glob("wandb/offline-run-*/files/media/table/scored responses*.json")
    drawn = json.loads(table.read_text())
    assert drawn["columns"] == ["round", "prompt", "response", "true_reward"] and len(drawn["data"]) == 2 * 4
    for of_set in (drawn["data"][:4], drawn["data"][4:]):
        assert [row[3] for row in of_set] == sorted((row[3] for row in of_set), reverse=True)


def test_a_run_from_the_cache_logs_every_step_too(
    users_run: Outcome, command_lines: MakeCommandLine, shared_cache: Path
) -> None:
    mpo = command_lines(shared_cache, WANDB_MODE="offline")
    again = mpo.testbed("loss.alpha=1")
    losses = [(row["step"], row["loss"]) for row in history(logged(again.folder)) if "loss" in row]
    assert losses == [(row["step"], row["loss"]) for row in users_run.metrics]


@pytest.mark.slow
def test_disabled_writes_nothing(first_run: Outcome, command_lines: MakeCommandLine, shared_cache: Path) -> None:
    silent = command_lines(shared_cache, WANDB_MODE="disabled")
    outcome = silent.testbed()
    assert outcome.result["evaluation"] == first_run.result["evaluation"]
    assert not [path for path in silent.home.rglob("*") if "wandb" in path.name]
