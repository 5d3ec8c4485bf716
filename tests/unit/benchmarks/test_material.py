"""What benchmarks train on, and how much of a step's arithmetic is useful."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.material import SIZES, RandomSets, vocabulary_of
from benchmarks.mfu import useful_flops
from mpo.config.training import Precision, TrainConfig
from mpo.planning.compute import step_work
from mpo.planning.data_size import DataSize
from mpo.planning.sizes import read_architecture


def test_lengths_like_ultrafeedbacks_are_skewed_and_within_its_limits() -> None:
    sets = RandomSets(2000, 4, 180, 280, spread=None)
    prompts = np.array([len(sets[i].prompt_ids) for i in range(2000)])
    responses = np.array([len(ids) for i in range(2000) for ids in sets[i].response_ids])
    assert np.mean(prompts) == pytest.approx(180, rel=0.05) and np.median(prompts) < 140
    assert np.mean(responses) == pytest.approx(280, rel=0.05) and np.std(np.log(responses)) == pytest.approx(
        0.8, rel=0.1
    )
    assert prompts.max() <= 1800 and responses.max() <= 1820 and min(prompts.min(), responses.min()) >= 4
    assert sets.max_tokens >= 1800 + 1820


def test_random_tokens_fit_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = RandomSets(20, 4, 30, 30, vocabulary=vocabulary_of("tiny"))
    assert max(ids.max() for i in range(20) for ids in sets[i].response_ids) < SIZES["tiny"]["vocab_size"]
    assert vocabulary_of("1b") < SIZES["1b"]["vocab_size"] == 128_256


@pytest.mark.parametrize(("name", "billions"), [("20m", 0.01937), ("1b", 1.236), ("8b", 1.923)])
def test_sizes(name: str, billions: float) -> None:
    assert read_architecture(SIZES[name]).parameters == pytest.approx(billions * 1e9, rel=1e-3)


def test_useful_flops_are_the_plans_without_what_is_computed_again() -> None:
    shape = read_architecture(SIZES["1b"])
    sets = RandomSets(4, 3, 100, 50, spread=0.0)
    size = DataSize(4, 3, 100, 50)
    train = TrainConfig(global_batch=4, precision=Precision.bf16, activation_checkpointing=False)
    again = 2 * size.response_tokens_total * shape.embedding
    assert useful_flops(shape, [sets[i] for i in range(4)]) == step_work(shape, train, size, 1).flops - again
