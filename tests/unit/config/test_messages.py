"""What a user's slip on the command line is told: the key, the nearest valid name, never Hydra's own advice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mpo.config.messages import explain, explain_composition
from mpo.errors import UserError
from tests.unit.config.conftest import Load

Explained = Callable[..., UserError]

HUGE = "9" * 400
"""Beyond all floating-point numbers."""
SLIPS = {
    "loss=wmp": ("loss", "'wmp' is not an option", "did you mean 'wmpo'?"),
    "los=wmpo": ("los", "no such key", "did you mean 'loss'?"),
    "trian.lr=1": ("trian", "no such key", "did you mean 'train'?"),
    "loss.bta=1": ("loss.bta", "no such key", "did you mean 'beta'?"),
    "train.warmup=1": ("train.warmup", "no such key", "did you mean 'warmup_ratio'?"),
    "+train.epoch=1": ("train.epoch", "no such key", "did you mean 'epochs'?"),
    "model.architecture.hidden_sizee=3": ("model.architecture.hidden_sizee", "no such key", "'hidden_size'"),
    "regime=sfft": ("regime", "'sfft' is not an option", "did you mean 'sft'?"),
    "train.lr=abc": ("train.lr", "'abc' does not fit", "give a number"),
    "train.epochs=1.5": ("train.epochs", "1.5 does not fit", "give a whole number"),
    "dry_run=perhaps": ("dry_run", "'perhaps' does not fit", "give true or false"),
    "data.limit=many": ("data.limit", "'many' does not fit", "give a whole number or null"),
    "train.schedule=cosin": ("train.schedule", "'cosin' does not fit", "one of cosine, linear, constant"),
    "model.stop_token_ids=5": ("model.stop_token_ids", "5 does not fit", "give a list"),
    "evaluate.temperatures=[hot]": ("evaluate.temperatures[0]", "'hot' does not fit", "give a number"),
    "launcher.rendezvous=null": ("launcher.rendezvous", "null does not fit", "give a text"),
    "data=response_sets": ("data.source", "has no value", "data.source="),
    "train.lr=[1": ("'train.lr=[1'", "not a readable override", "key=value"),
    "train.lr": ("'train.lr'", "not a readable override", "key=value"),
    "train.lr=1,2": ("'train.lr=1,2'", "several values", "add -m"),
    "+train=sft": ("train", "already chosen", "without a plus sign"),
    "++loss=dpo": ("'++loss=dpo'", "plus signs", "write loss=dpo"),
    "train/recipe/llama3_8b_instruct=dpo": ("train/recipe/llama3_8b_instruct", "no such group", "choose one of"),
    "+table99=mpo": ("table99", "no such key", "choose one of"),
    "seed=${nowhere}": ("seed", "'nowhere' not found", "name a key"),
    "seed=${oc.env:MPO_NOT_SET}": ("seed", "MPO_NOT_SET", "set the variable"),
    "train.lora.rank=8": ("", "below a key that is null", "train/lora=adapters"),
    "score.options.limit=20": ("score.options.limit", "no such key", "+score.options.limit="),
    "hydra.run.dirr=x": ("hydra.run.dirr", "no such key", "did you mean 'dir'?"),
    f"train.clip={HUGE}": ("train.clip", "too large", "a smaller one"),
    f"round_lr=[{HUGE}]": ("round_lr[0]", "too large", "a smaller one"),
    "model.stop_token_ids=${data.layout}": ("model.stop_token_ids", "does not fit", "give a list"),
    "model.stop_token_ids=${evaluate.temperatures}": ("model.stop_token_ids[0]", "does not fit", "a whole number"),
    "model.architecture=${train.lr}": ("model.architecture", "does not fit", "give a mapping"),
    "++train.lora=${train.lr}": ("train.lora", "does not fit", "give a mapping like {key: value} or null"),
    "data.score=${seed}": ("", "'${seed}' is not a group of keys", "one by one"),
    "regime=${seed}": ("", "key 'seed' not found", "name a key"),
}


@pytest.mark.parametrize("override", SLIPS)
def test_a_slip_is_told_in_one_line(explained: Explained, override: str) -> None:
    where, what, remedy = SLIPS[override]
    error = explained(override)
    assert error.where == where
    assert what in error.what and remedy in error.remedy
    assert "\n" not in str(error) and "append to your config" not in str(error)


PACKAGE = "# @package _global_\n"
FILES = {
    PACKAGE + "train:\n  lrr: 1e-4\n": ("mine/one: train.lrr", "no such key", "did you mean 'lr'?"),
    PACKAGE + "train:\n  lr: abc\n": ("mine/one: train.lr", "'abc' does not fit", "give a number"),
    PACKAGE + "defaults:\n  - override /los: dpo\n": ("mine/one: los", "no such group", "did you mean 'loss'?"),
    "train:\n  lr: 1e-4\n": ("mine/one", "below its folder's name", PACKAGE.strip()),
    "defaults:\n  - override /loss: dpo\n": ("mine/one", "below its folder's name", PACKAGE.strip()),
    PACKAGE + "train:\n\tlr: 1\n": ("one.yaml:3", "not readable as YAML", "fix it"),
    PACKAGE + "train:\n  lr: 1\n  lr: 2\n": ("one.yaml:4", "duplicate key lr", "fix it"),
    PACKAGE + "# caf\xe9\n": ("one.yaml", "not UTF-8 text", "save it as UTF-8"),
}


@pytest.mark.parametrize("text", FILES)
def test_a_mistake_in_a_file_names_it(explained: Explained, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text(text, encoding="latin-1")
    where, what, remedy = FILES[text]
    error = explained(f"hydra.searchpath=[file://{tmp_path}]", "+mine=one")
    assert error.where.endswith(where)
    assert what in error.what and remedy in error.remedy
    assert "\n" not in str(error)


def test_a_list_or_group_may_be_taken_from_another_key(load: Load) -> None:
    config = load("round_lr=${evaluate.temperatures}", "evaluate.temperatures=[1,0.5]")
    assert config.round_lr == [1.0, 0.5]


def test_several_options_of_a_group_are_no_list(explained: Explained) -> None:
    assert explained("loss=dpo,mpo").remedy == "add -m to run each"


def test_a_bug_of_ours_stays_one() -> None:
    assert explain(RuntimeError("index out of range")) is None
    assert explain_composition(AssertionError("impossible")) is None
    assert explain_composition(OSError("impossible")) is None


@pytest.mark.parametrize("overrides", [["model.scratch.sft.lr=1"], ["+model.scratch.sft.lr=1"]])
def test_two_levels_below_null(explained: Explained, overrides: list[str]) -> None:
    error = explained("model=llama3_8b", *overrides)
    assert "below a key that is null" in error.what and "model=small for model.scratch" in error.remedy


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        (tmp_path / "file" / "run").mkdir(parents=True)
    error = explain_composition(caught.value)
    assert error is not None and error.where.endswith("run") and "hydra.run.dir=FOLDER" in error.remedy
    ours = AttributeError("'NoneType' object has no attribute 'group'")
    assert explain(ours) is None  # a bug in a run; only while composing does it mean a key below null
