"""Expected sizes of data and training."""

from __future__ import annotations

from mpo.config.schema import DataConfig, SftResponses
from mpo.config.source import source_of
from mpo.config.training import TrainConfig
from mpo.planning.data_size import DataSize, batch_warning, data_size, heldout_size, imitated, optimizer_steps
from mpo.testbed.source import World


def test_a_global_batch_above_the_data_is_said() -> None:
    assert batch_warning(54, 54) is None
    assert batch_warning(128, 54) == (
        "train.global_batch 128 exceeds the 54 training sets: an epoch is one step on all of them; "
        "for more steps set train.global_batch below 54"
    )


def sized(data: DataConfig, responses: int | None, rounds: int = 1) -> DataSize | None:
    return data_size(data, source_of(data, ()), responses, rounds)


def test_expected_sizes() -> None:
    hub = DataConfig(
        source="owner/name",
        heldout=100,
        expected_sets=1100,
        expected_responses=4,
        expected_prompt_tokens=10,
        expected_response_tokens=20,
    )
    size = sized(hub, None)
    assert size is not None
    assert (size.sets, size.responses, size.tokens, size.response_tokens_total) == (1000, 4, 90_000, 80_000)
    assert sized(DataConfig(**{**vars(hub), "fraction": 0.25}), 5).sets == 250  # type: ignore[union-attr]
    assert sized(DataConfig(**{**vars(hub), "heldout_split": "test"}), None).sets == 1100  # type: ignore[union-attr]
    assert sized(DataConfig(**{**vars(hub), "heldout": 0.1, "limit": 500}), None).sets == 450  # type: ignore[union-attr]
    assert sized(DataConfig(**{**vars(hub), "expected_sets": None}), None) is None
    world = World(prompts=500)
    assert data_size(hub, world, 8, rounds=3).sets == 500  # type: ignore[union-attr]
    rounds = DataConfig(**{**vars(hub), "heldout": 0.1, "expected_sets": 60_000})
    assert sized(rounds, 5, rounds=3).sets == 18_000  # type: ignore[union-attr]
    limited = DataConfig(**{**vars(rounds), "limit": 3000})
    assert sized(limited, 5, rounds=3).sets == 900  # type: ignore[union-attr]
    best, every = (imitated(size, source_of(hub, ()), which) for which in (SftResponses.best, SftResponses.all))
    assert (best.sets, best.responses, every.sets, every.responses) == (1000, 1, 4000, 1)
    assert imitated(size, world, SftResponses.best).sets == world.demonstrations


def test_expected_held_out_sets() -> None:
    def held_out(rounds: int = 1, **values: object) -> int | None:
        data = DataConfig(**{"source": "owner/name", "expected_sets": 1000, **values})  # type: ignore[arg-type]
        return heldout_size(data, source_of(data, ()), rounds)

    assert [held_out(heldout=0.1), held_out(heldout=30), held_out(heldout=0.1, limit=55)] == [100, 30, 6]
    assert held_out(expected_sets=None) is None
    assert held_out(heldout_split="test") is None and held_out(heldout_split="test", expected_heldout=7) == 7
    assert heldout_size(DataConfig(), World(heldout_prompts=40), 3) == 40


def test_optimizer_steps() -> None:
    train = TrainConfig(global_batch=16, micro_batch=16, epochs=2)
    assert optimizer_steps(train, 500) == 64
    assert optimizer_steps(TrainConfig(global_batch=16, epochs=2, max_steps=10), 500) == 10
    assert optimizer_steps(TrainConfig(global_batch=16, epochs=1, max_steps=1000), 500) == 32
