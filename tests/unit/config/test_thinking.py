"""Marks of thoughts: which stages read them, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mpo.cache.artifacts import Store
from mpo.cache.stage import Stage
from mpo.config.schema import ThinkingConfig
from mpo.errors import ConfigError
from mpo.pipeline.regimes import compose
from mpo.pipeline.rules import validate
from tests.unit.config.conftest import Load

MARKS = 'model.thinking={start: "<think>", end: "</think>"}'
NONE = ThinkingConfig()


def stages(load: Load, tmp_path: Path, *overrides: str) -> dict[str, Stage]:
    config = dataclasses.replace(load("regime=on_policy", *overrides), dry_run=True)
    graph = compose(config, validate(config).loss)
    return {stage.name: stage for stage in graph.stages(Store(tmp_path))}


def test_scored_thoughts_change_the_scores_that_train_and_no_sample_and_no_evaluation(
    load: Load, tmp_path: Path
) -> None:
    plain, parted = stages(load, tmp_path), stages(load, tmp_path, MARKS)
    shown = stages(load, tmp_path, MARKS, "model.thinking.scored=true")
    sampled = [name for name, stage in plain.items() if stage.task == "sample"]
    judged = [name for name, stage in plain.items() if stage.task == "score" and name != "score"]
    assert len(sampled) > 2 and judged
    for name in sampled:
        assert plain[name].config.thinking == NONE
        assert parted[name].config.thinking == shown[name].config.thinking == ThinkingConfig("<think>", "</think>")
    assert plain["score"].config.thinking == parted["score"].config.thinking == NONE
    assert shown["score"].config.thinking == ThinkingConfig("<think>", "</think>", scored=True)
    assert all(shown[name].config.thinking == NONE for name in judged)


def test_answers_alone_change_what_is_trained_on_and_no_sample_and_no_score(load: Load, tmp_path: Path) -> None:
    parted = stages(load, tmp_path, MARKS, "model.thinking.scored=true")
    alone = stages(load, tmp_path, MARKS, "model.thinking.scored=true", "model.thinking.trained=false")
    assert (parted["prepare"].config.marks, alone["prepare"].config.marks) == (None, ["<think>", "</think>"])
    store = Store(tmp_path)
    same = {name for name in parted if store.fingerprint(parted[name]) == store.fingerprint(alone[name])}
    assert {"sample", "score"} <= same and not {"prepare", "train"} & same


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["regime=on_policy", "model.thinking.trained=false"], "model.thinking.start: has no value"),
        (["loss=kto", MARKS, "model.thinking.trained=false"], "model.thinking.trained: KTO compares whole responses"),
        (["regime=on_policy", "model.thinking.scored=true"], "model.thinking.start: has no value"),
        (["regime=sft", MARKS, "model.thinking.scored=true"], "model.thinking.scored: the run reads scores"),
    ],
)
def test_what_has_no_effect_is_one_line(load: Load, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(dataclasses.replace(load(*overrides), dry_run=True))
    assert str(caught.value).startswith(said)
