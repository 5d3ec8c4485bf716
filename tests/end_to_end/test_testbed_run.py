"""The main job in the testbed: what a run leaves behind, what it reuses, and that every regime gets to its end."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mpo.report.records import RunReport
from mpo.results import Results, run_key
from tests.end_to_end.conftest import CommandLine, Outcome


def test_a_run_leaves_its_report_record_metrics_and_policy(first_run: Outcome) -> None:
    page = (first_run.folder / "report.html").read_text()
    assert "<html" in page and 'src="http' not in page
    assert sorted(first_run.folder.glob("figures/*.png"))
    assert [row["step"] for row in first_run.metrics] == [1, 2, 3, 4]
    for name in ("true reward at T=1", "win rate at T=1", "held-out ranking accuracy"):
        error = first_run.measures[name].standard_error
        assert error is not None and error > 0, name
    last = first_run.metrics[-1]
    assert (last["rewards/chosen"], last["rewards/accuracies"]) == (last["reward_accepted"], last["accuracy"])
    assert last["logps/chosen"] < 0 and last["logps/rejected"] < 0
    assert [row["name"] for row in first_run.result["planned"]] == ["a training step", "memory of a process"]
    assert all(row["predicted"] > 0 and row["measured"] > 0 for row in first_run.result["planned"])
    assert set(first_run.planned.values()) == {"build"}
    assert list(first_run.planned) == first_run.started
    assert (first_run.folder / "policy").is_symlink()


def test_a_finished_run_is_in_the_store_of_results_once(
    first_run: Outcome, mpo: CommandLine, shared_cache: Path
) -> None:
    made = RunReport.load(first_run.folder)
    store = Results.open(shared_cache / "results")
    (run,) = store.find(run_key(made.config))
    assert f"results                            {store.folder}, run {run.id}" in first_run.err
    assert [row.estimate for row in store.rows() if row.run.id == run.id] == list(made.evaluation)
    for each in made.by_prompt:
        values = store.prompt_values(run, each.metric, each.temperature, judge=each.judge)
        assert tuple(values.values()) == each.values and tuple(values) == each.prompts, each.metric
    of_prompts = {each.about: statistics.fmean(each.values) for each in made.by_prompt}
    compared = {row.estimate.about: row.value for row in store.rows() if row.run.id == run.id}
    assert {"true_reward", "win_rate", "ranking_margin", "reference_kl"} <= {about[0] for about in of_prompts}
    for about, mean in of_prompts.items():
        if about[0] != "ranking_accuracy":  # whose sets have different numbers of pairs
            assert mean == pytest.approx(compared[about]), about
    mpo.testbed()
    assert [each.id for each in Results.open(store.folder).find(run.run_key)] == [run.id]


def test_the_exported_model_loads_and_speaks(first_run: Outcome) -> None:
    folder = first_run.folder / "policy"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "write 2 sentences about garden ; use : rose"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    torch.manual_seed(0)
    spoken = model.generate(**prompt, max_new_tokens=20, do_sample=True)[0, prompt["input_ids"].shape[1] :]
    assert len(tokenizer.decode(spoken, skip_special_tokens=True).split()) > 0
    assert "loss" in (folder / "README.md").read_text()


def test_the_same_command_again_builds_nothing(first_run: Outcome, mpo: CommandLine) -> None:
    again = mpo.testbed()
    assert set(again.planned.values()) == {"cached"}
    assert again.planned.keys() == first_run.planned.keys()
    assert again.started == []
    forwarded = "reference: sets forwarded by this run"
    assert (first_run.result["data_facts"][forwarded], again.result["data_facts"][forwarded]) == (24, 0)
    assert again.metrics == first_run.metrics
    assert again.result["evaluation"] == first_run.result["evaluation"]
    assert again.weights == first_run.weights


def test_memory_settings_are_chosen_recorded_and_chosen_again(mpo: CommandLine) -> None:
    """Also once the data are tokenised, of which the plan then knows more."""
    given = (
        "data.source.prompts=12",
        "train.memory=auto",
        "train.zero_stage=null",
        "train.activation_checkpointing=null",
    )
    first = mpo.testbed(*given)
    assert "train" in first.started and re.search(
        r"^  chosen +ZeRO 0, no layer recomputed, .* planned as the", first.err, re.M
    )
    train = first.result["config"]["train"]
    assert (train["memory"], train["zero_stage"], train["activation_checkpointing"]) == ("auto", 0, 0)
    assert train["offload"] == "none" and train["micro_tokens"] >= 4096
    again = mpo.testbed(*given)
    assert again.started == [] and again.result["config"]["train"] == train


def test_a_profile_is_shown_and_a_training_from_the_cache_says_that_it_has_none(
    first_run: Outcome, mpo: CommandLine
) -> None:
    cached = mpo.testbed("train.profile=true")
    assert cached.started == [] and "profiles" in cached.result and not cached.result["profiles"]
    assert "mpo: warning: train is taken from the cache, so there is nothing to profile;" in cached.err
    built = mpo.testbed("train.profile=true", "train.lr=0.0004")
    assert "train" in built.started and "mpo: warning: train" not in built.err
    assert re.search(r"^train: steps 3 to 4 of the first process, .* each with the profiler$", built.err, re.M)
    assert re.search(r"^  layers: products +\d+\.\d %$", built.err, re.M)
    shares = built.result["profiles"]["train"]["shares"]
    assert sum(shares.values()) == pytest.approx(1) and len(shares) > 8
    again = mpo.testbed("train.profile=true", "train.lr=0.0004")
    assert "mpo: warning: train is taken from the cache: its profile is that of the run which trained it" in again.err
    assert again.result["profiles"] == built.result["profiles"] and again.weights == built.weights
    plain = mpo.testbed("train.lr=0.0004")
    assert plain.started == [] and not plain.result["profiles"] and "with the profiler" not in plain.err


def test_a_loss_without_reference_runs_no_reference_stage(first_run: Outcome, mpo: CommandLine) -> None:
    outcome = mpo.testbed("loss=simpo")
    assert "reference" not in outcome.planned
    assert outcome.planned["sample"] == "cached"
    assert "kl" not in " ".join(outcome.metrics[-1])
    assert outcome.measures["held-out ranking accuracy"].baselines[0].name == "before training"


@pytest.mark.slow  # test_real_data.py has one on data from a file
def test_supervised_fine_tuning_stands_alone(mpo: CommandLine) -> None:
    outcome = mpo.testbed("regime=sft")
    losses = [row["loss"] for row in outcome.metrics]
    assert losses[-1] < losses[0]
    assert not {"reference", "sample", "start/sft"} & set(outcome.planned)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dpo", "kto", "grpo", "orpo", "pair_mcs", "nca", "mpo_ref_free"])
def test_other_losses_run_to_their_end(first_run: Outcome, mpo: CommandLine, loss: str) -> None:
    outcome = mpo.testbed(f"loss={loss}")
    assert [row["step"] for row in outcome.metrics] == [1, 2, 3, 4]
    assert outcome.weights != first_run.weights


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_the_policy_is_its_reference_still(mpo: CommandLine, precision: str) -> None:
    # The run stops if its first loss says otherwise.
    outcome = mpo.testbed("train.compile=true", f"train.precision={precision}")
    assert [row["step"] for row in outcome.metrics] == [1, 2, 3, 4]
    assert "norms and gates compiled" in outcome.result["data_facts"]["layout"]


@pytest.mark.slow
def test_on_policy_samples_from_the_starting_policy(first_run: Outcome, mpo: CommandLine) -> None:
    outcome = mpo.testbed("regime=on_policy")
    assert outcome.planned["sample"] == "cached"  # the testbed's own data are samples of that policy
    assert outcome.planned["partition"] == "build"  # but the bins are the two best and the two worst
    assert [row["step"] for row in outcome.metrics] == [1, 2, 3, 4]


@pytest.mark.slow
def test_each_round_samples_from_the_newest_policy(first_run: Outcome, mpo: CommandLine) -> None:
    outcome = mpo.testbed("regime=iterative", "rounds=2")
    for number in (1, 2):
        for stage in ("sample", "reference", "train", "evaluate/win_rate"):
            assert f"round{number}/{stage}" in outcome.planned
        assert (outcome.folder / f"round{number}-metrics.jsonl").is_file()
    stages = {row["name"]: Path(row["path"]) for row in outcome.result["stages"]}
    assert str(stages["round1/train"]) in (stages["round2/sample"] / "stage.json").read_text()
    assert str(stages["round1/train"]) in (stages["round2/reference"] / "stage.json").read_text()
    assert (outcome.folder / "policy").resolve() == stages["round2/train"] / "policy"
    assert {"true reward at T=1, round 1", "true reward at T=1, round 2"} <= set(outcome.measures)


@pytest.mark.slow
def test_online_rounds_are_one_training_with_one_optimizer(first_run: Outcome, mpo: CommandLine) -> None:
    outcome = mpo.testbed("regime=online", "rounds=3", "evaluate.temperatures=[]")
    stages = {row["name"]: Path(row["path"]) for row in outcome.result["stages"]}
    assert [(stages[f"round{n}/train"] / "state").is_dir() for n in (1, 2, 3)] == [True, True, False]
    read = [json.loads((stages[f"round{n}/train"] / "stage.json").read_text())["inputs"] for n in (1, 2, 3)]
    assert read[0]["state"] is None
    assert [each["state"]["folder"] for each in read[1:]] == [str(stages[f"round{n}/train"]) for n in (1, 2)]
    assert str(stages["round2/train"]) in (stages["round3/sample"] / "stage.json").read_text()


def test_a_mixture_of_experts_says_how_its_routers_are_trained(mpo: CommandLine) -> None:
    shape = {"model_type": "qwen3_moe", "+num_experts": 4, "+num_experts_per_tok": 2, "+moe_intermediate_size": 64}
    values = [f"{'+' * name.startswith('+')}model.architecture.{name.lstrip('+')}={shape[name]}" for name in shape]
    outcome = mpo.testbed(*values, "evaluate.temperatures=[]", "model.scratch.sft.max_steps=2")
    assert "experts    2 of 4 a token; routers are trained by the loss alone, no load-balancing loss is" in outcome.err
    said = "train: routers choose among 4 experts a layer and are trained by the loss alone: no load-balancing loss is"
    assert said in outcome.err
