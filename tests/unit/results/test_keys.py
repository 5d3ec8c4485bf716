from __future__ import annotations

from dataclasses import replace

from mpo.config.schema import LauncherConfig, ModelConfig, RunConfig
from mpo.config.training import MemoryChoice, Offload, TrainConfig
from mpo.evaluate.records import Estimate
from mpo.plain import to_plain
from mpo.results.keys import config_key, run_id, run_key, start_key

CONFIG = RunConfig(cache_dir="a", results="b", loss={"_target_": "mpo.losses.DPO", "beta": 1})


def test_where_and_how_a_run_ran_does_not_count() -> None:
    elsewhere = replace(
        CONFIG, name="other", cache_dir="c", results="d", dry_run=True, allow_targets=["mine."],
        logger={"wandb": {"project": "x"}}, launcher=LauncherConfig(processes=8),
        train=TrainConfig(
            checkpoint_every=7, keep_checkpoints=9, micro_tokens=100, stop_if_diverged=True, evaluate_every=9,
            reward_prompts=5, profile=True, zero_hpz=True,
        ),
    )  # fmt: skip
    assert run_key(elsewhere) == run_key(CONFIG) == run_key(to_plain(CONFIG))


def test_runs_stored_before_trainings_evaluated_have_the_same_key() -> None:
    chosen = replace(CONFIG, train=TrainConfig(evaluate_every=5, keep_best="heldout/loss"))
    stored = to_plain(chosen)
    del stored["train"]["stop_behind"], stored["train"]["reward_prompts"], stored["sweep"]["stop_behind"]
    assert run_key(stored) == run_key(chosen)
    stored = to_plain(CONFIG)
    added = (
        "evaluate_every",
        "keep_best",
        "stop_after",
        "stop_behind",
        "stop_if_diverged",
        "reward_prompts",
        "profile",
        "zero_hpz",
    )
    for key in added:
        del stored["train"][key]
    assert run_key(stored) == run_key(CONFIG)


def test_memory_settings_chosen_for_a_card_do_not_count() -> None:
    """So that a run is found by the configuration that was asked for, and seeds on two cards are one group."""
    asked = replace(CONFIG, train=TrainConfig(memory=MemoryChoice.auto))
    ran = TrainConfig(memory=MemoryChoice.auto, zero_stage=2, offload=Offload.none, activation_checkpointing=0,
                      micro_tokens=8192)  # fmt: skip
    assert run_key(asked) == run_key(replace(CONFIG, train=ran)) == run_key(to_plain(asked))
    assert run_key(asked) != run_key(replace(CONFIG, train=replace(ran, memory=MemoryChoice.given)))


def test_memory_settings_that_were_given_count_as_they_did() -> None:
    usual = TrainConfig(zero_stage=3, offload=Offload.none, activation_checkpointing=1, micro_tokens=16384)
    assert run_key(replace(CONFIG, train=usual)) == run_key(CONFIG)
    stored = to_plain(replace(CONFIG, train=replace(usual, activation_checkpointing=True)))
    del stored["train"]["memory"]
    assert run_key(stored) == run_key(CONFIG)
    for other in (replace(usual, zero_stage=2), replace(usual, activation_checkpointing=2)):
        assert run_key(replace(CONFIG, train=other)) != run_key(CONFIG)


def test_what_changes_results_counts_and_the_seed_in_one_of_two() -> None:
    for other in (
        replace(CONFIG, loss={**CONFIG.loss, "beta": 2}), replace(CONFIG, train=TrainConfig(lr=1e-3)),
        replace(CONFIG, rounds=2), replace(CONFIG, train=TrainConfig(evaluate_every=9, keep_best="heldout/loss")),
    ):  # fmt: skip
        assert run_key(other) != run_key(CONFIG) and config_key(other) != config_key(CONFIG)
    seeded = replace(CONFIG, seed=1)
    assert run_key(seeded) != run_key(CONFIG) and config_key(seeded) == config_key(CONFIG)
    assert run_key(replace(CONFIG, loss={**CONFIG.loss, "beta": 1.0})) == run_key(CONFIG)


def test_a_run_of_a_local_model_is_found_by_the_config_that_was_asked_for() -> None:
    """A run puts the model's own shape into its configuration."""
    asked = replace(CONFIG, model=ModelConfig(path="folder", architecture={}, parameters=5))
    ran = replace(CONFIG, model=ModelConfig(path="folder", architecture={"hidden_size": 8}))
    assert run_key(asked) == run_key(ran)
    assert start_key(to_plain(asked)) == start_key(to_plain(replace(ran, model=replace(ran.model, beta=1))))
    assert start_key(to_plain(asked)) != start_key(to_plain(CONFIG))


def test_code_and_estimates_make_another_run_of_the_same_configuration() -> None:
    plain, estimates = to_plain(CONFIG), [Estimate("win_rate", 0.5)]
    first = run_id(plain, {"torch": "2"}, "abc", estimates)
    assert first == run_id({**plain, "name": "other"}, {"torch": "2"}, "abc", estimates)
    others = (
        run_id(plain, {"torch": "3"}, "abc", estimates),
        run_id(plain, {"torch": "2"}, "abd", estimates),
        run_id(plain, {"torch": "2"}, "abc", [Estimate("win_rate", 0.6)]),
    )
    assert len({first, *others}) == 4
