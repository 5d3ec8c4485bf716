"""Memory settings that a configuration leaves open: who fills them in, what the plan says, and what is refused."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mpo.cache.artifacts import Store
from mpo.cache.stage import Stage
from mpo.config.schema import RunConfig
from mpo.config.training import MemoryChoice, MemorySettings, Offload, Precision, TrainConfig
from mpo.errors import ConfigError
from mpo.pipeline.memory_choice import settle
from mpo.pipeline.plan import show_plan
from mpo.pipeline.regimes import compose
from mpo.pipeline.rules import validate
from mpo.planning.fitting import Choice, Load, Room, choose
from mpo.planning.machine import GIB
from mpo.track.console import Console
from tests.unit.config.conftest import Load as Compose

Settle = Callable[..., tuple[RunConfig, dict[str, str]]]
LLAMA, SMALL = "model=llama3_8b", "model=qwen2_5_0_5b_instruct"


@pytest.fixture
def settled(changed: Compose) -> Settle:
    """``settled(*overrides)``: as a dry run takes them."""

    def chosen(*overrides: str, dry_run: bool = True) -> tuple[RunConfig, dict[str, str]]:
        config = replace(changed(*overrides), dry_run=True)
        return settle(replace(config, dry_run=dry_run), validate(config))

    return chosen


@pytest.fixture
def sixteen_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without cards."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("mpo.pipeline.memory_choice.host_memory", lambda: 16 * GIB)


@pytest.mark.parametrize("name", ["off_policy", "on_policy", "iterative", "online", "sft", "off_policy_mistral"])
def test_recipes_of_the_papers_leave_it_to_the_card(load: Compose, name: str) -> None:
    train = load(LLAMA, f"train={name}").train
    assert train.memory is MemoryChoice.auto
    assert train.open == ["zero_stage", "offload", "activation_checkpointing", "micro_tokens", "sequence_parallel"]


@pytest.mark.parametrize("name", ["testbed", "small"])
def test_recipes_of_small_models_say_it_themselves(load: Compose, name: str) -> None:
    train = load(f"train={name}").train
    assert train.memory is MemoryChoice.given and train.settled == MemorySettings(0, Offload.none, 0, 16384)


def test_what_is_null_is_the_same_for_every_machine_where_nothing_is_chosen(settled: Settle) -> None:
    config, said = settled(LLAMA, "train.memory=given", "train.activation_checkpointing=2")
    assert not said and config.train.settled == MemorySettings(3, Offload.none, 2, 16384) and not config.train.open


def test_the_plan_says_what_was_chosen_and_why(settled: Settle) -> None:
    config, said = settled(LLAMA, "launcher.device=h100")
    train = config.train
    assert (train.zero_stage, train.offload, train.activation_checkpointing) == (2, Offload.none, 0)
    assert train.micro_tokens == 8192 and train.memory is MemoryChoice.auto
    assert said["train"] == (
        "ZeRO 2, no layer recomputed, 8,192 tokens per micro-batch: at most 60.3 GiB of 74.5 GiB and 26.2 GiB of "
        "host memory; planned as the fastest of 84 that leave 10 % free; train.memory=given (ZeRO 3, every layer "
        "recomputed, 16,384 tokens per micro-batch) would need 25.7 GiB and 11.2 GiB of host memory and take "
        "1.23 times as long"
    )


@pytest.mark.parametrize("card", ["launcher.device=h100", "launcher.device=null"])
def test_weights_in_4_bits_are_compared_with_a_stage_that_holds_them(
    settled: Settle, card: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config, said = settled(LLAMA, "train/lora=qlora", card)
    assert config.train.settled.zero_stage < 3
    assert "ZeRO 2, every layer recomputed, 16,384 tokens per micro-batch" in said["train"]
    assert "train.memory=given" in said["train"] and "ZeRO 3" not in said["train"]


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("train.zero_stage=3", "zero_stage", 3),
        ("train.activation_checkpointing=true", "activation_checkpointing", 1),
        ("train.activation_checkpointing=3", "activation_checkpointing", 3),
        ("train.micro_tokens=5000", "micro_tokens", 5000),
        ("train.offload=optimizer", "offload", Offload.optimizer),
    ],
)
def test_a_value_of_ones_own_is_kept_and_the_rest_chosen(
    settled: Settle, override: str, name: str, value: object
) -> None:
    config, said = settled(LLAMA, "launcher.device=h100", override)
    assert getattr(config.train, name) == value and not config.train.open
    assert f", with {name} as given; planned" in said["train"]


def test_all_given_nothing_is_chosen(settled: Settle) -> None:
    values = ("zero_stage=1", "offload=none", "activation_checkpointing=false", "micro_tokens=4096",
              "sequence_parallel=1")  # fmt: skip
    config, said = settled(LLAMA, "launcher.device=h100", *(f"train.{value}" for value in values))
    assert config.train.settled == MemorySettings(1, Offload.none, 0, 4096)
    assert said == {"train": "nothing, all five memory settings have values"}


@pytest.mark.usefixtures("sixteen_gib")
def test_a_run_that_fits_nowhere_is_refused_in_one_line(settled: Settle) -> None:
    with pytest.raises(ConfigError) as caught:
        settled(LLAMA, "launcher.processes=1", dry_run=False)
    assert str(caught.value) == (
        "train.memory: nothing fits 16.0 GiB with 10 % left free: the smallest, ZeRO 1, every layer recomputed, 8,192 "
        "tokens per micro-batch, needs 138.6 GiB; take more or larger cards, adapters or a smaller model; "
        "train.memory=given tries all the same"
    )
    assert caught.value.exit_code == 2
    config, said = settled(LLAMA, "launcher.processes=1")  # a dry run goes on with the smallest
    assert said["train"].startswith("nothing fits 16.0 GiB") and said["train"].endswith("; a run would stop here")
    assert config.train.settled == MemorySettings(1, Offload.none, 1, 8192)
    assert settled(LLAMA, "launcher.processes=1", "train.memory=given", dry_run=False)[1] == {}


def test_a_card_that_does_not_hold_the_weights_is_said_in_the_plan(settled: Settle) -> None:
    said = settled("model=qwen2_5_32b_instruct", "launcher.processes=1", "launcher.device=l4")[1]["train"]
    assert said.startswith("nothing fits 22.4 GiB with 10 % left free: the smallest, ZeRO 3, all offloaded, ")
    assert "needs 62.3 GiB (for log-probs of the reference) and 1037.5 GiB of host memory" in said


def test_a_loss_without_a_reference_needs_no_memory_for_one(settled: Settle) -> None:
    on_one = ("model=qwen2_5_32b_instruct", "loss=simpo", "launcher.processes=1", "launcher.device=l4")
    evaluated = settled(*on_one)[1]["train"]
    assert "needs 62.3 GiB (while the policy is evaluated)" in evaluated
    config, said = settled(*on_one, "~evaluate.measures.ranking")
    assert config.train.settled == MemorySettings(3, Offload.parameters, 1, 16384)
    assert (
        said["train"].startswith("ZeRO 3, all offloaded, every layer recomputed") and "reference" not in said["train"]
    )


@pytest.mark.usefixtures("sixteen_gib")
def test_a_policy_that_fits_in_4_bits_but_not_whole_is_refused_before_it_is_trained(settled: Settle) -> None:
    in_4_bits = ("train/lora=qlora", "train.precision=bf16", "launcher.processes=1")
    small = [f"{key}={value}" for key, value in (("data.max_tokens", 256), ("data.max_prompt_tokens", 128))]
    with pytest.raises(ConfigError) as caught:
        settled(LLAMA, *in_4_bits, *small, dry_run=False)
    message = str(caught.value)
    assert "(while the policy is evaluated); take more" in message and "(~evaluate.measures.ranking)" in message
    assert settled(LLAMA, *in_4_bits, *small, "~evaluate.measures.ranking", dry_run=False)[1]["train"].startswith(
        "ZeRO"
    )


@pytest.mark.usefixtures("sixteen_gib")
@pytest.mark.parametrize("loss", ["wmpo", "simpo"])
def test_the_starting_policys_training_has_no_reference(
    settled: Settle, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[bool] = []

    def seen(train: TrainConfig, load: Load, room: Room) -> Choice:
        counted.append(load.needs_reference)
        return choose(train, load, room)

    monkeypatch.setattr("mpo.pipeline.memory_choice.choose", seen)
    both = (f"{key}.{each}" for key in ("model.scratch.sft", "train") for each in ("memory=auto", "zero_stage=null"))
    settled(f"loss={loss}", *both)
    assert counted == [False, loss == "wmpo"]


@pytest.mark.usefixtures("sixteen_gib")
def test_without_a_card_its_memory_is_shared_out(settled: Settle) -> None:
    given = (SMALL, "train.precision=fp32", "train.micro_batch=8")
    alone, two = (settled(*given, f"launcher.processes={processes}") for processes in (1, 2))
    assert "at most 13.4 GiB of 16.0 GiB; planned" in alone[1]["train"] and "nothing fits 8.0 GiB" in two[1]["train"]
    assert alone[0].train.offload is Offload.none and alone[0].train.zero_stage == 0


@pytest.mark.usefixtures("sixteen_gib")
@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ([LLAMA], "no card's memory is known here, and none is named (launcher.device=h100, say)"),
        ([LLAMA, "launcher.device=h100", "+model.architecture.model_type=mamba"], "the model's sizes are not known"),
    ],
)
def test_what_is_not_known_is_not_guessed(settled: Settle, overrides: list[str], why: str) -> None:
    overrides = [each.replace("+", "") for each in overrides]
    config, said = settled(*overrides)
    assert config.train.settled == MemorySettings() and not config.train.open
    start = "ZeRO 3, every layer recomputed, 16,384 tokens per micro-batch, as with train.memory=given: "
    assert said["train"].startswith(start) and why in said["train"]


@pytest.mark.usefixtures("sixteen_gib")
def test_a_fixed_stage_without_the_whole_weights_draws_no_responses(settled: Settle) -> None:
    drawn = ("train.evaluate_every=5", "train.reward_prompts=9")
    scored = ("regime=on_policy", "score=function", "score.function=theirs.score", "score.immediate=true",
              "allow_targets=[theirs.]")  # fmt: skip
    assert settled(LLAMA, *scored, *drawn, "launcher.device=a100-40gb")[0].train.zero_stage == 2
    with pytest.raises(ConfigError, match="train.reward_prompts: no process has the whole weights .*zero_stage=2"):
        settled(LLAMA, *scored, *drawn)  # nothing is chosen, for no card is known


@pytest.mark.usefixtures("sixteen_gib")
def test_a_starting_policys_training_is_chosen_for_too(settled: Settle) -> None:
    sft = ("memory=auto", "zero_stage=null", "activation_checkpointing=null")
    config, said = settled(*(f"model.scratch.sft.{each}" for each in sft))
    assert config.model.scratch is not None and set(said) == {"model.scratch.sft"}
    assert config.model.scratch.sft.settled == MemorySettings(0, Offload.none, 0, 4096)
    assert "model.scratch.sft.memory=given (ZeRO 3, every layer" in said["model.scratch.sft"]


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["train.offload=parameters", "train.zero_stage=2"], "train.offload: parameters are offloaded by ZeRO stage 3"),
        (["train.memory=given", "train.offload=parameters", "train.zero_stage=1"], "ZeRO stage 3, not 1"),
        (["train.memory=soon"], "train.memory: 'soon' does not fit; give one of auto, given"),
        (["train.activation_checkpointing=some"], "'some' does not fit; give true or false or a whole number or null"),
    ],
)
def test_mistakes(load: Compose, overrides: list[str], where: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(where)):
        validate(load(LLAMA, *overrides))


def trained(config: RunConfig) -> Stage:
    return compose(config, validate(replace(config, dry_run=True)).loss).rounds[0].train


def test_a_training_is_the_same_stage_however_its_settings_came_about(settled: Settle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    chosen = settled(LLAMA, "launcher.device=h100")[0]
    given = settled(LLAMA, "train.memory=given", "train.zero_stage=2", "train.offload=none",
                    "train.activation_checkpointing=false", "train.micro_tokens=999")[0]  # fmt: skip
    assert store.fingerprint(trained(chosen)) == store.fingerprint(trained(given))  # micro_tokens are free to change
    others = [
        settled(LLAMA, "launcher.device=h100", f"train.{each}")[0]
        for each in ("zero_stage=3", "activation_checkpointing=2")
    ]
    assert len({store.fingerprint(trained(each)) for each in (chosen, *others)}) == 3


def test_a_plan_has_the_line(settled: Settle, tmp_path: Path) -> None:
    config, said = settled(LLAMA, "launcher.device=h200", "train.precision=bf16")
    assert config.train.precision is Precision.bf16
    objects, out = validate(config), io.StringIO()
    store = Store(tmp_path / "cache")
    show_plan(Console(out), config, compose(config, objects.loss), store, objects, said)
    lines = dict(re.findall(r"^  (\S.*?) {2,}(.*)$", out.getvalue().partition("\nplan\n")[2], re.M))
    assert lines["chosen"] == said["train"] and "ZeRO 2" in lines["training"]
    assert "87.5 GiB a process with ZeRO 2, which fits the card's 131.3 GiB" in lines["memory"]


def test_settled_fills_in_and_counts_truth_as_one() -> None:
    assert TrainConfig().settled == MemorySettings()
    assert TrainConfig(activation_checkpointing=True).settled.activation_checkpointing == 1
    assert TrainConfig(zero_stage=0, micro_tokens=7).open == [
        "offload",
        "activation_checkpointing",
        "sequence_parallel",
    ]
