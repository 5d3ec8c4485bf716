"""Rules across groups: each names the key and a remedy that fixes it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from mpo.config.files import check_disk
from mpo.config.limits import RUN, check_limits
from mpo.config.schema import RunConfig
from mpo.errors import ConfigError, DataError, UserError
from mpo.partition import Partition, Shape, Similarities
from mpo.pipeline.rules import validate

Load = Callable[..., RunConfig]
LLAMA = "model=llama3_8b"

SERVER = "sampler=server sampler.urls=[http://localhost:8000/v1]"
CONFLICTS = {
    "train.keep_best=heldout/acuracy train.evaluate_every=5": ("train.keep_best", "did you mean 'heldout/accuracy'?"),
    "train.keep_best=heldout/loss": ("train.keep_best", "add train.evaluate_every=50"),
    "train.evaluate_every=5 train.stop_after=2": ("train.stop_after", "add train.keep_best=heldout/accuracy"),
    "train.stop_behind=[0.5]": ("train.stop_behind", "add train.keep_best=heldout/accuracy"),
    "train.reward_prompts=9": ("train.reward_prompts", "add train.evaluate_every=50"),
    "train.evaluate_every=5 train.keep_best=heldout/reward": ("train.keep_best", "add train.reward_prompts=100"),
    "train.evaluate_every=5 train.reward_prompts=9 train.zero_stage=3": ("train.reward_prompts", "zero_stage=2"),
    f"{LLAMA} train.evaluate_every=5 train.reward_prompts=9 train.zero_stage=2": (
        "train.reward_prompts",
        "leave it out",
    ),
    "model.scratch.sft.evaluate_every=5": ("model.scratch.sft.evaluate_every", "leave it out"),
    f"{LLAMA} data.heldout=0 train.evaluate_every=5": ("train.evaluate_every", "raise data.heldout"),
    f"{LLAMA} regime=sft train.evaluate_every=5 train.keep_best=heldout/margin": (
        "train.keep_best",
        "choose heldout/loss",
    ),
    "train.micro_batch=3": ("train.global_batch", "15 or 18, or train.micro_batch=2"),
    "launcher.processes=32": ("model.scratch.sft.global_batch", "the nearest that fit are 32"),
    "launcher.processes=32 model.scratch.sft.global_batch=32": ("train.global_batch", "the nearest that fit are 32"),
    "launcher=eight_gpus train.global_batch=20": ("train.global_batch", "the nearest that fit are 16 or 24"),
    f"{LLAMA} {SERVER}": ("evaluate.temperatures", "evaluate.temperatures=[]"),
    f"{LLAMA} {SERVER} score=skywork_v2 rounds=2 regime=iterative": ("sampler", "rounds=1"),
    f"regime=on_policy {SERVER}": ("sampler", "sampler=vllm"),
    "regime=online train.schedule=linear": ("train.schedule", "train.schedule=constant"),
    "regime=online round_lr=[1.0,0.5]": ("round_lr", "round_lr=[1.0]"),
    "regime=online train/lora=adapters model.path=x model.scratch=null": ("train.lora", "train/lora=none"),
    "launcher.nodes=2": ("launcher.rendezvous", "name the first machine"),
    f"{LLAMA} launcher=multi_node launcher.rendezvous=node0": ("launcher.rendezvous", "node0:29500"),
    "launcher.node_rank=1": ("launcher.node_rank", "give 0 to 0"),
    "model.reference=none": ("model.reference", "loss=simpo"),
    "loss=simpo partition=everything": ("partition", "best_vs_worst"),
    "partition=top_bottom sample.n=3": ("partition.k", "lower it to 1"),
    "partition=best_vs_spread sample.n=3": ("partition.k", "lower it to 2"),
    "partition=best_vs_clusters partition.path=./none": ("partition.path", "correct the path"),
    "partition=best_vs_clusters partition.path=a/b partition.k=99": ("partition.k", "lower it to"),
    "partition=best_vs_clusters partition.path=a/b regime=sft": ("partition", "choose another regime"),
    "loss=point_ce partition=best_vs_lowest": ("partition", "choose one of shape everything"),
    f"{LLAMA} partition=top_bottom partition.k=3": ("partition.k", "lower it to 2"),
    "loss=k_bin partition.bins=9": ("partition.bins", "lower it to 8"),
    "regime=on_policy partition=given": ("partition", "reads scores"),
    f"{LLAMA} data=ultrachat_200k": ("loss", "regime=sft"),
    "regime=sft loss=dpo": ("loss", "another regime"),
    "rounds=3": ("rounds", "regime=iterative"),
    "data.heldout_split=test": ("data.heldout_split", "leave it out"),
    "data.source.prompts=0": ("data.source.prompts", "in [1, 1e+06]"),
    "round_beta=[0.5] loss=list_mle": ("round_beta", "with one"),
    "data.source=null": ("data.source", "give a file"),
    "sampler.batch=0": ("sampler.batch", "in [1, 1e+06]"),
    "sampler.btch=7": ("sampler.btch", "did you mean"),
    "round_lr=[1.0,0.5]": ("round_lr", "regime=iterative"),
    "round_beta=[1.0,0.5]": ("round_beta", "regime=iterative"),
    "regime=iterative round_lr=[]": ("round_lr", "at least one"),
    "regime=iterative round_lr=[1.0,0.0]": ("round_lr", "in [1e-06, 1000]"),
    "score=data": ("score", "score=function"),
    f"{LLAMA} regime=on_policy score=testbed": ("score", "score=function"),
    "regime=on_policy sample.n=1": ("sample.n", "raise it to 2"),
    f"{LLAMA} data.heldout=1.5": ("data.heldout", "whole number"),
    "seed=99999999999": ("seed", "in [0, 1e+09]"),
    f"{LLAMA} score=testbed": ("score", "score=data"),
    "score._target_=mpo.score.function.Nothing": ("score._target_", "choose one of"),
    f"{LLAMA} train.zero_stage=2 train.offload=parameters": ("train.offload", "train.zero_stage=3"),
    "train.offload=optimizer": ("train.offload", "train.zero_stage=1"),
    "train/lora=adapters regime=sft": ("train.lora", "leave it out"),
    "data=ultrafeedback": ("model.scratch.tokenizer", "model=small"),
    "model.scratch.tokenizer=words": ("model.scratch.tokenizer", "bpe or source"),
    "model.path=owner/name": ("model.path", "write model.scratch=null too"),
    f"{LLAMA} model.path=null": ("model.path", "model=tiny"),
    "model.architecture.num_attention_heads=3": ("model.architecture.num_attention_heads", "choose a divisor"),
    "data.max_prompt_tokens=144": ("data.max_prompt_tokens", "lower it"),
    "data.max_tokens=257": ("data.max_tokens", "256 or less"),
    "sample.max_new_tokens=193": ("sample.max_new_tokens", "192 or less"),
    f"{LLAMA} model.path=./nowhere": ("model.path", "correct the path"),
    f"{LLAMA} model.reference=./nowhere": ("model.reference", "correct the path"),
    f"{LLAMA} model.tokenizer=./nowhere": ("model.tokenizer", "tokenizer.json"),
    f"{LLAMA} data.source=nowhere.jsonl": ("data.source", "correct the path"),
    "data.fraction=0": ("data.fraction", "in [1e-06, 1]"),
    "evaluate.temperatures=[1.0,0.0]": ("evaluate.temperatures", "in [0.001, 100]"),
    "train.warmup_ratio=1": ("train.warmup_ratio", "in [0, 1)"),
    "train.zero_stage=4": ("train.zero_stage", "in [0, 3]"),
    "train.activation_checkpointing=-1": ("train.activation_checkpointing", "in [0, 1000]"),
    "model.scratch.sft.lr=-1": ("model.scratch.sft.lr", "in [1e-12, 10]"),
    "train.lr=nan": ("train.lr", "in [1e-12, 10]"),
}


def refusal(config: RunConfig) -> UserError:
    with pytest.raises(UserError) as caught:
        validate(config)
    return caught.value


@pytest.mark.parametrize("overrides", CONFLICTS)
def test_a_conflict_names_key_and_remedy(changed: Load, overrides: str) -> None:
    where, remedy = CONFLICTS[overrides]
    error = refusal(changed(*overrides.split()))
    assert error.where == where
    assert remedy in error.remedy


@dataclasses.dataclass(frozen=True)
class Alike(Partition):
    """Reads embeddings, but says neither whose nor how."""

    shape: ClassVar[Shape] = Shape.two
    needs_embeddings: ClassVar[bool] = True

    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        return [0] * len(scores)


class Written(Alike):
    def assign_embedded(self, scores: Sequence[float], similarities: Similarities) -> list[int]:
        return [0] * len(scores)


@pytest.mark.parametrize(("name", "what"), [("Alike", "has no assign_embedded"), ("Written", "names no encoder")])
def test_an_own_partition_by_embeddings_is_tried_before_anything_is_built(load: Load, name: str, what: str) -> None:
    config = dataclasses.replace(load(), partition={"_target_": f"{__name__}.{name}"}, allow_targets=[__name__])
    assert what in refusal(config).what


def test_compiling_needs_a_compiler(changed: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    assert validate(changed("train.compile=true"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    error = refusal(changed("train.compile=true"))
    assert error.where == "train.compile" and "g++" in error.remedy
    assert validate(changed())


def test_following_the_remedy_mends_the_batch(changed: Load) -> None:
    error = refusal(changed("train.micro_batch=3"))
    sizes = re.findall(r"\d+", error.remedy.split(", or")[0])
    for size in sizes:
        assert validate(changed("train.micro_batch=3", f"train.global_batch={size}"))
    assert validate(changed("train.micro_batch=2"))


def test_every_limit_names_a_key_that_exists(changed: Load) -> None:
    check_limits(changed("model=tiny", "train/lora=adapters"))
    config = changed()
    for key in RUN:
        node: object = config
        for name in key.split("."):
            assert node is None or hasattr(node, name), key
            node = getattr(node, name, None)


def test_a_model_folder_needs_config_and_weights(changed: Load, tmp_path: Path) -> None:
    config = changed(LLAMA, f"model.path={tmp_path}")
    assert "config.json" in str(refusal(config))
    (tmp_path / "config.json").write_text("{}")
    assert "no weights" in str(refusal(config))
    (tmp_path / "model.safetensors").write_bytes(b"0")
    assert validate(config)


def test_a_data_file_is_there_and_holds_something(changed: Load, tmp_path: Path) -> None:
    config = changed("model=small", f"data.source={tmp_path / 'sest.jsonl'}")
    (tmp_path / "sets.jsonl").touch()
    error = refusal(config)
    assert isinstance(error, DataError) and "did you mean 'sets.jsonl'?" in error.remedy
    assert "is empty" in str(refusal(changed("model=small", f"data.source={tmp_path / 'sets.jsonl'}")))
    assert "is a folder" in str(refusal(changed("model=small", f"data.source={tmp_path}")))


def test_too_small_a_disk_is_told(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "yet", 1)
    with pytest.raises(ConfigError, match="cache_dir: needs about .* GiB"):
        check_disk(tmp_path, 10**18)


def test_of_a_tiny_disk_no_zeros_are_shown(small_disk: Callable[[int], Path]) -> None:
    with pytest.raises(ConfigError, match=r"cache_dir: needs about 17\.0 MiB, [1-8]\.\d MiB are free"):
        check_disk(small_disk(8192), 17 * 2**20)


EXTREMES = [
    *("launcher.threads=100000", "sample.n=1000000000000000000", "train.epochs=1000000000000", "train.lr=1e300"),
    *("evaluate.temperatures=[1e-300]", "model.beta=1e-300", "train.global_batch=1000000000000", "rounds=100000"),
    *("loss.beta=1e-300", "loss.alpha=1e300", "model.architecture.num_hidden_layers=100000"),
    *("data.source.prompts=1000000000000", "train.adam_eps=1e-300"),
    *(f"{key}={'9' * 400}" for key in ("seed", "data.source.seed", "loss.beta", "sample.n", "data.limit")),
]


@pytest.mark.parametrize("override", EXTREMES)
def test_extremes_are_refused_by_their_key(changed: Load, override: str) -> None:
    key = override.partition("=")[0]
    assert refusal(changed("regime=iterative", override)).where == key


def test_a_list_has_a_most_of_entries(changed: Load) -> None:
    many = ",".join(["1.0"] * 21)
    assert refusal(changed(f"evaluate.temperatures=[{many}]")).remedy == "give at most 20"


def test_a_second_copy_of_the_weights_is_for_zero_3_on_several_machines(changed: Load) -> None:
    two = ("launcher.nodes=2", "launcher.processes=2", "launcher.rendezvous=node0:29500", "train.global_batch=4")
    second = ("model=qwen2_5_0_5b_instruct", "train.micro_batch=1", "train.zero_hpz=true", "dry_run=true", *two)
    assert validate(changed(*second, "train.zero_stage=3"))
    for stage in ("train.zero_stage=2", "train.memory=auto"):
        error = refusal(changed(*second, stage))
        assert error.where == "train.zero_hpz" and "train.zero_stage=3" in error.remedy
    for one in ("launcher.nodes=1", "launcher.processes=1"):
        error = refusal(changed(*second, "train.zero_stage=3", one))
        assert error.where == "train.zero_hpz" and "several machines" in error.remedy


def test_weights_in_4_bits_are_not_spread(changed: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = ("model=qwen2_5_0_5b_instruct", "train/lora=qlora", "dry_run=true")
    assert validate(changed(*adapted, "train.zero_stage=2"))
    open_stage = changed(*adapted, "train.zero_stage=null")
    assert validate(open_stage) and open_stage.train.settled.zero_stage == 2
    error = refusal(changed(*adapted, "train.zero_stage=3"))
    assert error.where == "train.zero_stage" and "2 or less" in error.remedy
    for given in ("train.zero_stage=2", "train.zero_stage=null", "train.memory=auto"):
        error = refusal(changed(*adapted, given, "train.offload=parameters"))
        assert error.where == "train.offload" and error.remedy == "choose optimizer or none"
    monkeypatch.setattr("mpo.pipeline.training_rules.find_spec", lambda name: None)
    error = refusal(changed(*adapted, "train.zero_stage=2", "dry_run=false"))
    assert error.where == "train.lora.quantization" and "[qlora]" in error.remedy


def test_processes_that_share_rows_divide_the_others_and_the_heads(changed: Load) -> None:
    model = ("model=qwen2_5_0_5b_instruct", "dry_run=true", "launcher.processes=4", "train.micro_batch=2")
    assert validate(changed(*model, "train.sequence_parallel=2", "train.global_batch=8"))
    error = refusal(changed(*model, "train.sequence_parallel=3", "train.global_batch=8"))
    assert error.where == "train.sequence_parallel" and "groups of 3 processes cannot be made of 4" in error.what
    error = refusal(changed(*model, "train.sequence_parallel=4", "train.global_batch=8"))
    assert error.where == "train.sequence_parallel" and "4 processes cannot share 14 heads" in error.what
    error = refusal(changed(*model, "train.sequence_parallel=2", "train.global_batch=7"))
    assert error.where == "train.global_batch" and "on 2 groups of 2 processes" in error.what
