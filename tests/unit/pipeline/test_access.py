"""Another user's files are told in one line, before anything reads them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo.cache.artifacts import Store
from mpo.cache.stage import Stage
from mpo.config.schema import DataConfig, ModelConfig, RunConfig
from mpo.errors import ConfigError
from mpo.pipeline.access import check_cache, check_inputs, check_output

NOBODY = 65534


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every user may look into, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_another_user(action: Callable[[], None]) -> ConfigError | None:
    """What ``action`` raises where root's rights do not help."""
    if os.geteuid() != 0:
        return _refused(action)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def act() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        there.send(_refused(action))

    process = context.Process(target=act)
    process.start()
    there.close()
    found: ConfigError | None = here.recv()
    process.join()
    return found


def _refused(action: Callable[[], None]) -> ConfigError | None:
    try:
        action()
    except ConfigError as error:
        return error
    return None


def config(home: Path, **model: Any) -> RunConfig:
    (home / "sets.jsonl").write_text("{}")
    folder = home / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "part" / "model.safetensors").write_text("")
    (home / "own.jinja").write_text("")
    return RunConfig(data=DataConfig(source=str(home / "sets.jsonl")), model=ModelConfig(path=str(folder), **model))


@pytest.mark.parametrize(
    ("closed", "key", "named"),
    [
        ("sets.jsonl", "data.source", "read"),
        ("model", "model.path", "look into"),
        ("model/config.json", "model.path", "read"),
        ("model/part", "model.path", "look into"),
        ("model/part/model.safetensors", "model.path", "read"),
        ("own.jinja", "model.chat_template", "read"),
    ],
)
def test_an_input_that_may_not_be_read_is_named(home: Path, closed: str, key: str, named: str) -> None:
    given = config(home, chat_template=str(home / "own.jinja"))
    assert as_another_user(lambda: check_inputs(given)) is None
    (home / closed).chmod(0)
    found = as_another_user(lambda: check_inputs(given))
    (home / closed).chmod(0o755)
    assert found is not None
    for part in (key, f"'{home / closed}'", f"this user may not {named}", "change its permissions"):
        assert part in str(found)


def test_a_link_to_where_this_user_may_not_look(home: Path) -> None:
    given = config(home)
    (home / "closed").mkdir()
    (home / "closed" / "weights").touch()
    link = home / "model" / "part" / "other.safetensors"
    link.symlink_to(home / "closed" / "weights")
    (home / "closed").chmod(0)
    found = as_another_user(lambda: check_inputs(given))
    (home / "closed").chmod(0o755)
    assert found is not None and f"model.path: this user may not read '{link}'" in str(found)


def test_a_folder_without_model_or_tokenizer_is_not_looked_through(home: Path) -> None:
    (home / "else" / "below").mkdir(parents=True)
    (home / "else" / "below").chmod(0)
    given = config(home, tokenizer=str(home / "else"))
    assert as_another_user(lambda: check_inputs(given)) is None


def test_hub_names_are_not_looked_for(home: Path) -> None:
    given = config(home)
    check_inputs(replace(given, model=ModelConfig(path="owner/model"), data=DataConfig(source="owner/data")))


def test_a_run_folder_that_takes_no_files(home: Path) -> None:
    (home / "run").mkdir(mode=0o555)
    found = as_another_user(lambda: check_output(home / "run"))
    assert found is not None and "hydra.run.dir" in str(found) and "write to" in str(found)


@pytest.mark.parametrize(
    ("closed", "named"),
    [("", "look into"), ("manifest.json", "read"), ("policy", "read"), ("policy/model.safetensors", "read")],
)
def test_another_users_part_of_a_shared_cache(home: Path, closed: str, named: str) -> None:
    stage = Stage("train", "train")
    store = Store(home)
    work = store.open_work(stage)
    (work / "policy").mkdir()
    (work / "policy" / "model.safetensors").write_text("weights")
    (work / "policy" / "model.safetensors").chmod(0o600)  # as the library that writes it does
    path = store.commit(stage, {"usage": {}})
    (home / "hashes").mkdir(exist_ok=True)
    (home / "hashes").chmod(0o777)
    assert as_another_user(lambda: check_cache(store, [stage])) is None
    (path / closed).chmod(0)
    found = as_another_user(lambda: check_cache(store, [stage]))
    (path / closed).chmod(0o755)
    assert found is not None
    for part in ("cache_dir", str(path / closed), f"this user may not {named}", "cache_dir=FOLDER"):
        assert part in str(found)


def test_a_stage_to_be_built_beside_another_users(home: Path) -> None:
    store = Store(home)
    home.chmod(0o777)
    (home / "hashes").mkdir()
    (home / "hashes").chmod(0o777)
    (home / "train").mkdir(mode=0o755)
    assert as_another_user(lambda: check_cache(store, [Stage("data", "data")])) is None
    found = as_another_user(lambda: check_cache(store, [Stage("train", "train")]))
    assert found is not None and f"this user may not write to '{home / 'train'}'" in str(found)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_what_is_committed_follows_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        store, stage = Store(tmp_path / "cache"), Stage("data", "data")
        work = store.open_work(stage)
        for library, mode in (("safetensors", 0o600), ("script", 0o755)):
            (work / library).write_text("x")
            (work / library).chmod(mode)
        (work / "logs").mkdir(mode=0o700)
        path = store.commit(stage, {"usage": {}})
    finally:
        os.umask(before)
    rights = {name: (path / name).stat().st_mode & 0o777 for name in ("manifest.json", "safetensors", "logs")}
    assert rights == {"manifest.json": 0o666 & ~mask, "safetensors": 0o666 & ~mask, "logs": 0o777 & ~mask}
    assert (path / "script").stat().st_mode & 0o777 == 0o755 | (0o666 & ~mask)
    assert path.stat().st_mode & 0o777 == 0o777 & ~mask
