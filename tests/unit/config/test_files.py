"""Names of files and folders, told from names of the hub."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from mpo.config.files import DATA_SUFFIXES, check_files, is_local, with_own_shape
from mpo.config.schema import DataConfig, ModelConfig, RunConfig
from mpo.errors import ConfigError, DataError


@pytest.mark.parametrize("name", ["./x", "../x", "~/x", "x.jsonl", "a/b.parquet", "runs/tuned/policy"])
def test_paths(name: str) -> None:
    assert is_local(name, DATA_SUFFIXES)


@pytest.mark.parametrize("name", ["gpt2", "openbmb/UltraFeedback", "meta-llama/Llama-3.1-8B"])
def test_hub_names(name: str) -> None:
    assert not is_local(name, DATA_SUFFIXES)


@pytest.mark.parametrize(("source", "explained"), [("sets.csv", "no known format"), ("sets.jsonl", "no file"),
                                              ("some/where/sets", "no file")])  # fmt: skip
def test_a_data_file_that_cannot_be_read(source: str, explained: str) -> None:
    with pytest.raises(DataError, match=explained):
        check_files(RunConfig(data=DataConfig(source=source)))


def test_a_format_that_is_not_read_though_the_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "sets.csv").write_text("prompt,chosen,rejected\n")
    with pytest.raises(DataError, match=r"sets\.csv.*no known format"):
        check_files(RunConfig(data=DataConfig(source=str(tmp_path / "sets.csv"))))


def test_a_pipe_is_told_as_such(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sets.jsonl")
    with pytest.raises(DataError, match=r"sets\.jsonl' is a pipe or device"):
        check_files(RunConfig(data=DataConfig(source=str(tmp_path / "sets.jsonl"))))


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_folder_tells_its_own_shape(tmp_path: Path, nested: bool) -> None:
    shape = {"model_type": "llama", "hidden_size": 64, "max_position_embeddings": 32, "head_dim": None, "other": 1}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x", "text_config": shape} if nested else shape))
    chosen = ModelConfig(path=str(tmp_path), parameters=7, architecture={"hidden_size": 4096, "vocab_size": 9})
    found = with_own_shape(RunConfig(data=DataConfig(source="testbed"), model=chosen)).model
    assert found.architecture == {"model_type": "llama", "hidden_size": 64, "max_position_embeddings": 32}
    assert found.parameters is None and found.path == str(tmp_path)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(ConfigError, match=r"model\.path: its config\.json is broken"):
        with_own_shape(RunConfig(data=DataConfig(source="testbed"), model=chosen))


def test_a_model_on_the_hub_keeps_the_chosen_shape() -> None:
    config = RunConfig(data=DataConfig(source="testbed"), model=ModelConfig(path="owner/name", parameters=7))
    assert with_own_shape(config) is config


def test_weights_in_a_pickle_are_named_with_the_way_to_convert_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        ConfigError, match=r"as a pickle \(pytorch_model\.bin\), but only safetensors are read; convert it"
    ):
        check_files(RunConfig(data=DataConfig(source="testbed"), model=ModelConfig(path=str(tmp_path))))


def test_a_model_folder_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        check_files(RunConfig(data=DataConfig(source="testbed"), model=ModelConfig(path="runs/tuned/policy")))


@pytest.mark.parametrize(
    ("values", "explained"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "a LlamaForSequenceClassification, which predicts no"),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "a BertForMaskedLM, which predicts no"),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True}, "(t5)"),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}, None),
        ({"architectures": ["LlamaForCausalLM"]}, None),
        ({"architectures": None}, None),
        ([], None),
    ],
)
def test_a_folder_with_another_kind_of_model(values: object, explained: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").write_bytes(b"")
    config = RunConfig(data=DataConfig(source="testbed"), model=ModelConfig(path=str(tmp_path)))
    if explained is None:
        check_files(config)
        return
    said = rf"model\.path: .*{re.escape(explained)}.*; name a folder with a decoder-only"
    with pytest.raises(ConfigError, match=said):
        check_files(config)
