"""What a stage's fingerprint follows, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpo.cache.artifacts import Store
from mpo.cache.stage import Placement
from mpo.errors import ConfigError
from mpo.losses import LOSSES, WMPO, Loss
from mpo.pipeline.regimes import compose
from mpo.testbed.source import World
from tests.unit.config.conftest import Load

TOKENIZED = ("prepare", "train")
OWN_SCORER = (
    "model=small",
    "data=response_sets",
    "data.source=owner/name",
    "score=function",
    "score.function=theirs.score",
)


def fingerprints(load: Load, cache: Path, *overrides: str, loss: str = "wmpo") -> dict[str, str]:
    config = load(*overrides, f"loss={loss}")
    made: Loss = LOSSES[loss](**{key: value for key, value in config.loss.items() if key != "_target_"})
    store = Store(cache)
    return {stage.name: store.fingerprint(stage) for stage in compose(config, made).stages(store)}


def test_templates_and_tokenizers_count_by_their_content(load: Load, tmp_path: Path) -> None:
    template, folder = tmp_path / "own.jinja", tmp_path / "tokenizer"
    folder.mkdir()
    template.write_text("{{ messages }}")
    (folder / "tokenizer.json").write_text("{}")
    chosen = ("model=llama3_8b", f"model.chat_template={template}", f"model.tokenizer={folder}")
    before = fingerprints(load, tmp_path, *chosen)
    assert fingerprints(load, tmp_path, *chosen) == before
    template.write_text("{{ messages[0] }}")
    other_template = fingerprints(load, tmp_path, *chosen)
    assert all(other_template[name] != before[name] for name in TOKENIZED)
    assert other_template["data"] == before["data"]
    (folder / "tokenizer.json").write_text('{"added_tokens": []}')
    other_tokenizer = fingerprints(load, tmp_path, *chosen)
    assert all(other_tokenizer[name] != other_template[name] for name in TOKENIZED)


def test_a_template_that_is_not_there_is_told_with_the_plan(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown chat template 'lama3'.*did you mean 'llama3'"):
        fingerprints(load, tmp_path, "model=llama3_8b", "model.chat_template=lama3")


@pytest.mark.parametrize(
    ("changed", "same", "other"),
    [
        ("train.micro_batch=8", ["reference"], ["train"]),
        ("train.micro_tokens=999", ["reference", "train", "evaluate/ranking"], []),
        ("train.profile=true", ["reference", "train", "evaluate/ranking"], []),
        ("train.zero_hpz=true", ["train", "evaluate/ranking"], []),
        ("model.scratch.sft.profile=true", ["start/sft", "sample", "train"], []),
        ("evaluate.batch=3", ["evaluate/ranking"], []),
        ("allow_targets=[own]", ["score", "reference", "train", "evaluate/ranking"], []),
        ("train.lr=1", ["reference", "partition"], ["train", "evaluate/ranking", "evaluate/win_rate"]),
        ("data.source.prompts=9", ["start/sft"], ["sample", "train"]),
    ],
)
def test_what_a_change_redoes(load: Load, tmp_path: Path, changed: str, same: list[str], other: list[str]) -> None:
    before, after = fingerprints(load, tmp_path), fingerprints(load, tmp_path, changed)
    assert {name for name in [*same, *other] if before[name] != after[name]} == set(other)


def test_the_reference_is_one_for_any_number_of_processes(load: Load, tmp_path: Path) -> None:
    one, four = (fingerprints(load, tmp_path, "model=llama3_8b", f"launcher.processes={n}") for n in (8, 4))
    assert one["reference"] == four["reference"] and one["train"] != four["train"]


def test_what_vllm_has_loaded_is_checked_by_the_policy_that_it_draws_from(load: Load, tmp_path: Path) -> None:
    def canaries(*overrides: str) -> dict[str, tuple[str, str] | None]:
        graph = compose(load(*overrides, "regime=iterative", "evaluate.temperatures=[1.0]"), LOSSES["wmpo"]())
        return {
            stage.name: None
            if stage.inputs.canary is None
            else (stage.inputs.canary.name, stage.inputs.canary.inputs.policy.name)
            for stage in graph.stages(Store(tmp_path))
            if stage.task == "sample" and stage.name.endswith(("sample", "start@1", "round1/evaluate/policy@1"))
        }

    assert canaries("sampler=vllm") == {
        "round1/sample": ("start/canary", "start/sft"),
        "round2/sample": ("round1/canary", "round1/train"),
        "round3/sample": ("round2/canary", "round2/train"),
        "evaluate/start@1": ("start/canary", "start/sft"),
        "round1/evaluate/policy@1": ("round1/canary", "round1/train"),
    }
    assert set(canaries().values()) == {None}


def test_a_few_held_out_prompts_are_answered_where_nothing_judges(load: Load, tmp_path: Path) -> None:
    config = load("model=llama3_8b")
    samples = {
        stage.name: stage.config.prompts
        for stage in compose(config, LOSSES["wmpo"]()).stages(Store(tmp_path))
        if stage.task == "sample"
    }
    assert samples == {"evaluate/start@0.7": 8, "evaluate/policy@0.7": 8}


def test_a_policy_is_measured_by_itself_the_starting_one_once_and_first(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "own.yaml").write_text("task: own")
    chosen = ("evaluate=lm_eval", f"evaluate.measures.lm_eval.include_path={folder}", "regime=iterative", "rounds=2")
    before = fingerprints(load, tmp_path, *chosen)
    names = list(before)
    assert names.index("evaluate/lm_eval/start") < names.index("round1/train")
    assert {name for name in names if "lm_eval" in name} == {
        "evaluate/lm_eval/start",
        *(f"round{number}/evaluate/{name}" for number in (1, 2) for name in ("lm_eval/policy", "lm_eval")),
    }
    other_seed = fingerprints(load, tmp_path, *chosen, "seed=1", "evaluate.measures.lm_eval.gpu_memory=0.5")
    assert other_seed["evaluate/lm_eval/start"] == before["evaluate/lm_eval/start"]
    assert other_seed["round1/evaluate/lm_eval/policy"] != before["round1/evaluate/lm_eval/policy"]
    (folder / "own.yaml").write_text("task: own\nnum_fewshot: 2")
    other_task = fingerprints(load, tmp_path, *chosen)
    assert other_task["evaluate/lm_eval/start"] != before["evaluate/lm_eval/start"]
    assert other_task["round2/train"] == before["round2/train"]


@pytest.mark.parametrize(("loss", "needed"), [("point_ce", True), ("point_mse", True), ("sft", False), ("mpo", True)])
def test_losses_that_read_scores_get_them_transformed(load: Load, tmp_path: Path, loss: str, needed: bool) -> None:
    graph = compose(
        load("data=response_sets", "model=small", "data.source=owner/name", "data.score.scale=0.5"), LOSSES[loss]()
    )
    stages = {stage.name: stage for stage in graph.stages(Store(tmp_path))}
    assert stages["data"].config.needs_scores is stages["partition"].config.needs_scores is needed
    assert stages["partition"].config.transform.scale == (0.5 if needed else 1.0)


def test_sets_are_sorted_into_bins_before_a_starting_policy_is_trained(load: Load, tmp_path: Path) -> None:
    config = load("model=small", "data=response_sets", "data.source=owner/name")
    names = [stage.name for stage in compose(config, WMPO()).stages(Store(tmp_path))]
    assert names.index("partition") < names.index("start/prepare") < names.index("start/sft") < names.index("train")


def test_the_testbeds_held_out_sets_are_judged_by_the_truth(load: Load, tmp_path: Path) -> None:
    config = load("score=testbed_proxy", "score.options.noise_sigma=4")
    stages = {stage.name: stage for stage in compose(config, WMPO()).stages(Store(tmp_path))}
    assert stages["score"].config.scorers["proxy_reward"]["options"]["noise_sigma"] == 4
    assert stages["score"].config.heldout == {"true_reward": World.true_scorer}
    elsewhere = load("regime=on_policy", *OWN_SCORER)
    stages = {stage.name: stage for stage in compose(elsewhere, WMPO()).stages(Store(tmp_path))}
    assert stages["score"].config.heldout == stages["score"].config.scorers


def test_a_function_scores_in_a_process_of_its_own_unless_it_is_immediate(load: Load, tmp_path: Path) -> None:
    for own, placement in (([], Placement.process), (["score.immediate=true"], Placement.here)):
        config = load("regime=on_policy", "score=function", "score.function=theirs.score", *own)
        stages = {stage.name: stage for stage in compose(config, LOSSES["wmpo"]()).stages(Store(tmp_path))}
        assert stages["score"].placement is placement


@pytest.mark.parametrize("value", ["'${oc.env:HOME}'", "'${ oc.env : HOME}'", "['${oc.env:HOME}']"])
def test_no_part_of_an_option_is_taken_from_the_environment(load: Load, value: str) -> None:
    with pytest.raises(ConfigError, match="a variable's value would be written"):
        load(f"+score.options.key={value}")


@pytest.mark.parametrize("group", ["sampler", "score", "loss", "partition"])
def test_no_option_is_taken_from_the_environment(load: Load, group: str) -> None:
    with pytest.raises(ConfigError, match=rf"{group}\.options\.key: a variable's value would be written"):
        load(f"+{group}.options.key='${{oc.env:HOME}}'")


def test_a_reward_model_counts_by_its_content(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    chosen = ("model=small", "data=response_sets", "data.source=owner/name", "regime=on_policy", "score=reward_model")
    before = fingerprints(load, tmp_path, *chosen, f"score.path={folder}")
    (folder / "config.json").write_text('{"num_labels": 1}')
    after = fingerprints(load, tmp_path, *chosen, f"score.path={folder}")
    changed = {name for name in before if before[name] != after[name]}
    assert {"score", "partition", "train"} <= changed and not {"data", "sample", "start/sft"} & changed
    hub = [fingerprints(load, tmp_path, *chosen, "score.path=o/m", f"score.revision={name}") for name in ("a", "b")]
    assert hub[0]["score"] != hub[1]["score"]
