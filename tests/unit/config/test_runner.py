"""What a run checks beside its configuration, and what it tells others of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpo.cache.artifacts import Store
from mpo.config.schema import DataConfig, LauncherConfig, ModelConfig, RunConfig
from mpo.errors import ConfigError
from mpo.losses import WMPO
from mpo.pipeline.regimes import compose
from mpo.pipeline.runner import _check_cards, _check_layout, _folder, _logged
from tests.unit.config.conftest import Load


def test_of_local_files_the_name_alone_is_logged(tmp_path: Path) -> None:
    model = ModelConfig(path=str(tmp_path / "mine/policy"), reference="owner/name")
    data = DataConfig(source=str(tmp_path / "sets.jsonl"))
    config = RunConfig(model=model, data=data, cache_dir=str(tmp_path), results=str(tmp_path / "results"))
    explained = _logged(config)
    assert explained["model"]["path"] == "policy" and explained["model"]["reference"] == "owner/name"
    assert explained["data"]["source"] == "sets.jsonl" and str(tmp_path) not in str(explained)


def test_folders_that_runs_write_to_are_made_or_refused(tmp_path: Path) -> None:
    made = _folder(str(tmp_path / "a/b"), "results", "MPO_RESULTS")
    assert made.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"results: .*cannot be written to .*results=FOLDER, or set MPO_RESULTS"):
        _folder(str(tmp_path / "file/b"), "results", "MPO_RESULTS")
    with pytest.raises(ConfigError, match="results: is empty; name a folder, or leave results and MPO_RESULTS out"):
        _folder(" ", "results", "MPO_RESULTS")


@pytest.mark.parametrize(("cards", "refused"), [(0, False), (1, True), (2, False)])
def test_more_processes_than_cards_are_refused(cards: int, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: cards)
    config = RunConfig(launcher=LauncherConfig(processes=2))
    if refused:
        with pytest.raises(ConfigError, match="launcher.processes: 2 processes, but 1 CUDA devices"):
            _check_cards(config)
    else:
        _check_cards(config)


@pytest.mark.parametrize(
    ("layout", "score_field", "where"), [("resp_sets", None, "layout"), ("pairs", "x", "score_field")]
)
def test_a_layout_that_there_is_not_is_told_before_anything_is_read(
    layout: str, score_field: str | None, where: str
) -> None:
    data = DataConfig(source="owner/name", layout=layout, score_field=score_field)
    with pytest.raises(ConfigError) as caught:
        _check_layout(RunConfig(data=data))
    assert caught.value.where == f"data.{where}"


def test_what_an_earlier_run_has_written_needs_no_room(load: Load, tmp_path: Path) -> None:
    store, graph = Store(tmp_path), compose(load("model=llama3_8b"), WMPO())
    train = graph.rounds[0].train
    assert store.written(train) == 0
    (store.open_work(train) / "checkpoint").write_bytes(b"x" * 1000)
    assert store.written(train) == 1000
