"""Offline runs are read back from W&B's own file; nothing here reaches a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpo.errors import ConfigError
from mpo.track.logger import Identity
from mpo.track.wandb_run import WandbLogger, WandbRun, has_key
from tests.wandb_file import records

KEY = "0123456789abcdef0123456789abcdef01234567"


def identity(folder: Path, **config: Any) -> Identity:
    return Identity("test-name", "off_policy", "0123456789abcdef", folder, config)


def finished_records(folder: Path) -> list[Any]:
    """All records of the one offline run under ``folder``; W&B's service writes the last of them a little later."""
    (file,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = list(records(file))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.05)
    raise AssertionError(f"{file} was not completed")


@pytest.fixture
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user without W&B settings; gives the run's folder."""
    import wandb

    wandb.teardown()  # it reads the environment once a process
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    yield tmp_path / "run"
    wandb.teardown()


def test_offline_run_holds_config_history_and_summary(no_key: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger = WandbLogger(project="test-project", group="test-group", tags=["one", "two"])
    run = logger.open(identity(no_key, loss={"beta": 0.3}))
    assert isinstance(run, WandbRun)
    for step in (1, 2, 1):  # a second round begins at 1 again
        run.log({"train/loss": 0.5 / step}, step)
    run.table("samples", ["prompt", "response"], [["p", "r"]])
    run.summary({"true reward": 7.25})
    run.finish()

    found = finished_records(no_key)
    (opened,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert (opened.project, opened.run_group, opened.display_name) == ("test-project", "test-group", "test-name")
    assert (opened.job_type, list(opened.tags)) == ("off_policy", ["one", "two"])
    assert {u.key: json.loads(u.value_json) for u in opened.config.update}["loss"] == {"beta": 0.3}
    assert opened.host == "" and opened.run_id == "0123456789abcdef"
    history = [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item if len(item.nested_key) == 1}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["step"], row["train/loss"]) for row in history if "train/loss" in row] == [
        (1, 0.5),
        (2, 0.25),
        (1, 0.5),
    ]
    summary = {
        update.key: json.loads(update.value_json)
        for record in found
        if record.WhichOneof("record_type") == "summary"
        for update in record.summary.update
    }
    assert summary["true reward"] == 7.25
    (table,) = (no_key / "wandb").glob("offline-run-*/files/media/table/samples*.json")
    assert json.loads(table.read_text()) == {"columns": ["prompt", "response"], "data": [["p", "r"]]}
    assert not list((no_key / "wandb").glob("offline-run-*/files/*requirements*"))
    assert not list((no_key / "wandb").glob("offline-run-*/files/wandb-metadata.json"))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_later_attempt_has_the_same_id_and_numbers_its_records_alike(no_key: Path) -> None:
    found = []
    for attempt in ("stopped", "again"):
        run = WandbLogger().open(identity(no_key / attempt))
        assert run is not None
        run.log({"start/loss": 1.0}, 1)
        run.log({"loss": 0.5}, 1)
        run.finish(failed=attempt == "stopped")
        of_attempt = finished_records(no_key / attempt)
        (opened,) = [record.run for record in of_attempt if record.WhichOneof("record_type") == "run"]
        steps = [r.history.step.num for r in of_attempt if r.WhichOneof("record_type") == "history"]
        found.append((opened.run_id, steps))
    assert found[0] == found[1] == ("0123456789abcdef", [0, 1])


def test_a_key_is_never_written(no_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = WandbLogger().open(identity(no_key))
    assert run is not None
    run.log({"loss": 1.0}, 1)
    run.finish()
    assert finished_records(no_key)
    files = [path for path in no_key.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_disabled_writes_nothing_and_does_not_import_wandb(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code = f"""
import sys
from pathlib import Path
from mpo.track.logger import Identity, Loggers
from mpo.track.wandb_run import WandbLogger
run = Loggers.open([WandbLogger()], Identity("name", "sft", "0a", Path({str(folder)!r}), {{}}))
run.log({{"loss": 1.0}}, 1)
run.table("t", ["a"], [["b"]])
run.image("i", Path("none.png"))
run.summary({{}})
run.finish()
assert "wandb" not in sys.modules
print(run.runs)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"WANDB_MODE": "disabled"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert not folder.exists()


def test_a_key_is_looked_for_in_the_environment_and_in_netrc(no_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.invalid")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_key()
    monkeypatch.delenv("WANDB_API_KEY")
    home = no_key.parent / "home"
    home.mkdir(exist_ok=True)
    (home / ".netrc").write_text(f"machine elsewhere.invalid login user password {KEY}\n")
    assert not has_key()
    (home / ".netrc").write_text(f"machine wandb.invalid login user password {KEY}\n")
    assert has_key()


def test_online_without_a_key_says_what_to_do(no_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match="WANDB_MODE=offline"):
        WandbLogger().open(identity(no_key))
