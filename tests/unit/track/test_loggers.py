"""What TensorBoard and Trackio keep, read back; a continued run, several loggers at once, what is refused."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mpo.errors import ConfigError
from mpo.track.logger import Identity, Logger, Loggers, Run, build_loggers, run_key
from mpo.track.tensorboard_run import TensorBoardLogger
from mpo.track.trackio_run import TrackioLogger

TOKEN = "hf_" + "q" * 34


def identity(folder: Path, **config: Any) -> Identity:
    return Identity("test-name", "off_policy", "0123456789abcdef", folder, config)


def picture(path: Path) -> Path:
    """A red PNG of 2 x 2."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\xff\0\0" * 2) * 2)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", pixels) + part(b"IEND", b""))
    return path


def log_everything(run: Run, folder: Path, steps: int) -> None:
    for step in range(1, steps + 1):
        run.log({"start/loss": 2.0 / step}, step)
    for step in range(1, steps + 1):  # the next training starts again at 1
        run.log({"loss": 0.5 / step, "heldout/accuracy": 0.75}, step)
    run.table("samples", ["prompt", "response"], [["p", "a | b"]])
    run.image("loss", picture(folder / "loss.png"))
    run.summary({"true reward": 7.25, "commit": "abc"})
    run.finish()


def test_tensorboard_holds_all_and_a_second_attempt_in_one_folder_hides_the_first(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopped = TensorBoardLogger().open(identity(tmp_path))
    stopped.log({"loss": 9.0}, 1)
    stopped.log({"loss": 9.0}, 30)
    stopped.finish(failed=True)
    log_everything(TensorBoardLogger().open(identity(tmp_path, loss={"beta": 0.3})), tmp_path, 3)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("start/loss")] == [1, 2, 3]
    assert [(event.step, round(event.value, 4)) for event in found.Scalars("loss")] == [
        (1, 0.5),
        (2, 0.25),
        (3, 0.1667),
    ]
    assert found.Scalars("summary/true reward")[0].value == 7.25
    texts = {tag: found.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"]}
    assert "beta: 0.3" in texts["configuration/text_summary"]
    assert "| p | a \\| b |" in texts["samples/text_summary"] and "| commit | abc |" in texts["summary/text_summary"]
    assert (found.Images("loss")[0].width, found.Images("loss")[0].height) == (2, 2)


def test_trackio_holds_all_and_goes_on_with_a_run(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tests.unit.track.test_loggers import identity, log_everything
from mpo.track.trackio_run import TrackioLogger
folder = Path({str(tmp_path)!r})
stopped = TrackioLogger("test-project").open(identity(folder, loss={{"beta": 0.3}}))
for step in (1, 2, 3):
    stopped.log({{"start/loss": 2.0 / step}}, step)
stopped.log({{"loss": 0.5}}, 1)
stopped.finish(failed=True)
log_everything(TrackioLogger("test-project").open(identity(folder, loss={{"beta": 0.3}})), folder, 3)
from trackio.sqlite_storage import SQLiteStorage
assert SQLiteStorage.get_runs("test-project") == ["test-name-01234567"], SQLiteStorage.get_runs("test-project")
logs = SQLiteStorage.get_logs("test-project", "test-name-01234567")
def rows(key):
    return [(row["step"], row["optimizer_step"]) for row in logs if key in row and "optimizer_step" in row]
assert rows("start/loss") == [(0, 1), (1, 2), (2, 3)], logs
assert rows("loss") == [(3, 1), (4, 2), (5, 3)], logs
assert [row["summary/true reward"] for row in logs if "summary/true reward" in row] == [7.25]
(table,) = [row["samples"] for row in logs if "samples" in row]
assert table["_value"] == [{{"prompt": "p", "response": "a | b"}}], table
config = SQLiteStorage.get_run_config("test-project", "test-name-01234567")
assert config["loss"] == {{"beta": 0.3}} and config["_Username"] is None, config
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRACKIO_")}
    environment |= {"TRACKIO_DIR": str(tmp_path / "store"), "HF_TOKEN": TOKEN, "HOME": str(tmp_path)}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert files and not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_trackio_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    with pytest.raises(ConfigError, match="TRACKIO_SPACE_ID would send the run to another machine; unset it"):
        TrackioLogger().check()


@pytest.mark.parametrize("kind", ["tensorboard.TensorBoard", "trackio.Trackio"])
def test_a_missing_package_is_one_line(kind: str, tmp_path: Path) -> None:
    package, name = kind.split(".")
    code = f"""
import importlib.util, sys
sys.path = [entry for entry in sys.path if "site-packages" not in entry]
from mpo.track.{package}_run import {name}Logger
{name}Logger().check()
"""
    # OmegaConf and YAML are read from a folder that has nothing else.
    import omegaconf
    import yaml

    for module in (omegaconf, yaml, sys.modules["antlr4"]):
        (tmp_path / module.__name__).symlink_to(Path(str(module.__file__)).parent)
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": f"{root}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1].endswith(
        f"logger: the package {package} is not installed; pip install 'mpo[loggers]', or choose another logger"
    )


@dataclass(frozen=True)
class Broken(Logger):
    def open(self, identity: Identity) -> Run | None:
        raise ConfigError("no", "logger.broken", "do something else")


def test_if_one_logger_cannot_start_the_others_are_closed(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(ConfigError, match="logger.broken: no"):
        Loggers.open([TensorBoardLogger(), Broken()], identity(tmp_path, seed=1))
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert "configuration/text_summary" in found.Tags()["tensors"]  # flushed, and so closed


def test_nodes_are_built_by_name_and_mistakes_have_their_key() -> None:
    node = {"_target_": "mpo.track.trackio_run.TrackioLogger", "project": "mine"}
    assert build_loggers({"one": node}, []) == [TrackioLogger("mine")]
    with pytest.raises(ConfigError, match="logger.one.progect: TrackioLogger has no 'progect'"):
        build_loggers({"one": {**node, "progect": "x"}}, [])


def test_the_key_of_a_run_follows_from_name_and_stages() -> None:
    assert run_key("a", ["1", "2"]) == run_key("a", ["1", "2"]) != run_key("b", ["1", "2"]) != run_key("a", ["1", "3"])
