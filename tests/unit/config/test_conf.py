"""Every option of every group composes and validates, and who wins where groups choose for each other."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig

from mpo.config.paths import folder, groups, options
from mpo.config.schema import RunConfig
from mpo.config.targets import TARGET, resolve
from mpo.config.training import MemoryChoice, Precision, Schedule
from mpo.losses import LOSSES, MPO, SFT, WMPO, Deviation, Loss, Sum
from mpo.losses import Compose as Composed
from mpo.partition import PARTITIONS, Mean, Partition, TopBottom
from mpo.pipeline.rules import validate

Compose = Callable[..., DictConfig]
Load = Callable[..., RunConfig]
LOG_RATIO = sorted(
    name for name, loss in LOSSES.items() if loss.needs_reference and "beta" in loss.__dataclass_fields__
)
COMPOSITIONS: dict[str, type[Loss]] = {"raft": SFT, "list_hinge": Composed, "mixed": Sum}
"""Losses that are a file alone, of a class that other files name too."""


# Runs that between them choose every option of every group: composing takes a third of a second each.
JUDGES = [name for name in options("score") if name.startswith("llm_judge")]
OTHER_SCORERS = ("data", "function", "reward_model", "testbed", "testbed_proxy", *JUDGES)  # those that name no model
SERVED = ["score.urls=[http://localhost:8000/v1]", "score.model=judge"]
JUDGED = "evaluate.measures.judged.judges.judge"
MODELS = [name for name in options("model") if name != "small" and "ultrachat" not in name]  # fewer than losses
INSTRUCT, BASE, FILE = "model=llama3_8b_instruct", "model=llama3_8b", "data.source=FILE"


RUNS = [
    *(
        [f"loss={loss}", f"model={model}"]
        for loss, model in zip(options("loss"), itertools.cycle(MODELS), strict=False)
    ),
    *([f"model={name}"] for name in options("model") if "ultrachat" in name),  # which are tuned, and choose the loss
    ["model=small", FILE, "partition=given", "logger=none"],
    [BASE, "data=pairs", FILE, "partition=best_vs_random", "launcher=local", "evaluate=testbed"],
    [BASE, "data=ultrafeedback_armorm", "partition=median", "launcher=slurm", "train/lora=adapters"],
    [BASE, "data=mistral_ultrafeedback_pairrm", "partition=trimmed_mean", "train=small", "launcher=joblib"],
    [BASE, "partition=mean", "launcher=multi_node", "launcher.rendezvous=node0:29500"],
    [BASE, "partition=top_bottom", "sample=small"],
    ["partition=best_vs_spread", "sample.n=16", "evaluate=testbed_table"],
    ["partition=best_vs_lowest", "sample.n=16"],
    ["partition=best_vs_clusters", "partition.path=owner/encoder", "sample.n=16"],
    ["regime=on_policy", "score=function", "score.function=mpo.testbed.reward.true_reward"],
    ["regime=sft", "score=testbed_proxy", "logger=tensorboard"],
    ["regime=on_policy", "score=reward_model", "score.path=owner/model", "logger=trackio"],
    *(["regime=on_policy", f"score={name}"] for name in options("score") if name not in OTHER_SCORERS),
    *(["regime=on_policy", f"score={name}", *SERVED] for name in JUDGES),
    ["evaluate=judged", *(f"{JUDGED}.{entry.removeprefix('score.')}" for entry in SERVED)],
    ["evaluate=judged_by_reward", f"score@{JUDGED}=armorm"],
    ["regime=iterative", "sampler=vllm"],
    [INSTRUCT, "data=prompts", FILE],
    ["model=small", "data=mixture", "data.source.parts={a:{path:owner/name,weight:2},b:{path:owner/other}}"],
    [INSTRUCT, "regime=online"],
    ["model=mistral_7b_instruct", "regime=online"],
    [INSTRUCT, "sampler=server", "sampler.urls=[http://localhost:8000/v1]", "evaluate.temperatures=[]"],
    [INSTRUCT, "regime=iterative", "sample=simpo"],
    ["model=mistral_7b_instruct", "regime=iterative", "sample=sppo"],
    ["model=mistral_7b_instruct", "regime=sft"],
    [INSTRUCT, "evaluate=arena_hard", "evaluate.measures.arena_hard.question_file=question.jsonl"],
    [INSTRUCT, "evaluate=alpaca_eval", "evaluate.measures.alpaca_eval.reference=model_outputs.json"],
    [INSTRUCT, "evaluate=lm_eval"],
    [INSTRUCT, "evaluate=mt_bench", "evaluate.measures.mt_bench={question_file:q.jsonl,model:judge}"],
    [INSTRUCT],
]


@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_a_run_validates(load: Load, data_file: str, overrides: list[str]) -> None:
    config = load(*(f"data.source={data_file}" if entry == FILE else entry for entry in overrides))
    objects = validate(dataclasses.replace(config, dry_run=True))
    assert isinstance(objects.loss, Loss) and isinstance(objects.partition, Partition)


def test_those_runs_choose_every_option(composed: Compose, data_file: str) -> None:
    chosen = {
        choice
        for overrides in RUNS
        for choice in composed(
            *(f"data.source={data_file}" if entry == FILE else entry for entry in overrides)
        ).hydra.runtime.choices.items()
    }
    assert {(group, option) for group in groups() for option in options(group)} - chosen == set()


@pytest.mark.parametrize(
    "path", sorted(folder("conf").rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_file_begins_with_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert header.startswith("# ") and header.endswith((".", ")."))
    assert all(len(line) <= 120 for line in lines)


def test_losses_and_partitions_are_all_on_offer() -> None:
    assert options("loss") == sorted([*LOSSES, *COMPOSITIONS])
    assert options("partition") == sorted([*PARTITIONS, "by_regime", "ranks_by_regime"])


@pytest.mark.parametrize(("name", "cls"), COMPOSITIONS.items())
def test_a_composition_is_a_file_alone(load: Load, name: str, cls: type[Loss]) -> None:
    assert type(validate(load(f"loss={name}")).loss) is cls


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"sum"}))  # whose terms' beta is the model's
def test_a_loss_file_states_its_class_defaults_and_partition(load: Load, name: str) -> None:
    cls = LOSSES[name]
    config = load(f"loss={name}")
    assert resolve(config.loss, Loss, (), "loss") is cls
    assert set(config.loss) == {TARGET, *(field.name for field in dataclasses.fields(cls))}
    objects = validate(config)
    given = dataclasses.replace(objects.loss, beta=cls().beta) if name in LOG_RATIO else objects.loss  # type: ignore
    assert given == cls()
    if cls.default_partition != "everything":  # off-policy, the regime's partition keeps every response too
        assert isinstance(objects.partition, PARTITIONS[cls.default_partition])
    assert objects.partition.keeps(8) == PARTITIONS[cls.default_partition]().keeps(8)


def test_alone_it_is_wmpo_in_the_testbed(load: Load) -> None:
    config = load()
    objects = validate(config)
    assert objects.loss == WMPO(beta=0.3, alpha=0.1, deviation=Deviation.absolute) and objects.partition == Mean()
    assert config.data.source[TARGET] == "mpo.testbed.source.World" and config.regime.name == "off_policy"
    assert (config.train.global_batch, config.train.epochs, config.train.lr) == (16, 2, 5e-4)
    assert (config.train.schedule, config.train.precision) == (Schedule.linear, Precision.fp32)


def test_the_papers_off_policy_setting(load: Load) -> None:
    config = load("loss=wmpo", "model=llama3_8b")
    assert validate(config).loss == WMPO(beta=0.01, alpha=0.1, deviation=Deviation.absolute)
    assert config.model.path == "princeton-nlp/Llama-3-Base-8B-SFT" and config.data.source == "openbmb/UltraFeedback"
    train = config.train
    assert (train.lr, train.epochs, train.global_batch, train.micro_batch) == (5e-7, 1, 128, 16)
    assert (train.schedule, train.warmup_ratio, train.memory) == (Schedule.cosine, 0.1, MemoryChoice.auto)
    assert train.precision is Precision.bf16 and config.launcher.processes == 8


def test_the_papers_on_policy_setting(load: Load) -> None:
    config = load("loss=mpo", "model=mistral_7b_instruct")
    objects = validate(dataclasses.replace(config, dry_run=True))
    assert objects.loss == MPO(beta=0.01) and objects.partition == TopBottom(k=2)
    assert (config.sample.n, config.sample.temperature, config.train.lr) == (5, 1.0, 1.5e-7)


SET_LEVEL = ["mpo", "wmpo", "mpo_ref_free", "dpo_cross_pairs", "kto", "infonca", "nca", "grpo", "plackett_luce",
             "dpo_all_pairs"]  # fmt: skip
"""Losses whose class does not fix which responses of a set they contrast."""


@pytest.mark.parametrize("name", SET_LEVEL)
def test_set_level_losses_see_the_regimes_responses(load: Load, name: str) -> None:
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    kept = {}
    for regime in ("off_policy", "iterative"):
        config = load(f"loss={name}", "model=llama3_8b_instruct", f"regime={regime}")
        partition = validate(dataclasses.replace(config, dry_run=True)).partition
        kept[regime] = [number >= 0 for number in partition(scores)]
    four = [True, True, False, True, True]
    assert kept == {"off_policy": [True] * 5, "iterative": four}


@pytest.mark.parametrize(
    ("loss", "llama", "mistral"),
    [("mpo", 3e-7, 1.5e-7), ("wmpo", 3e-7, 1.5e-7), ("dpo", 7e-7, 5e-7), ("simpo", 1e-6, 5e-7)]
    + [(name, 5e-7, 5e-7) for name in ("ipo", "kto", "orpo", "rdpo", "sppo")],
)
def test_baselines_have_their_own_rates(load: Load, loss: str, llama: float, mistral: float) -> None:
    for model, rate in (("llama3_8b_instruct", llama), ("mistral_7b_instruct", mistral)):
        assert load(f"loss={loss}", f"model={model}").train.lr == rate


@pytest.mark.parametrize("model", ["llama3_8b_instruct", "mistral_7b_instruct"])
def test_a_rate_of_ones_own_replaces_a_baselines(load: Load, model: str) -> None:
    assert load("loss=mpo", f"model={model}", "train.lr=1e-9").train.lr == 1e-9
    assert load("loss=mpo", f"model={model}", "train=small").train.lr == 2e-4
    assert load("loss=mpo", "model=llama3_8b").train.lr == 5e-7


@pytest.mark.parametrize("path", sorted(folder("conf").glob("train/recipe/*/*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_belongs_to_a_model_and_a_loss(path: Path) -> None:
    assert path.parent.name in options("model") and path.stem in options("loss")


@pytest.mark.parametrize(
    ("model", "rates"),
    [("llama3_8b_instruct", [5e-7, 4e-7, 3e-7, 3e-7]), ("mistral_7b_instruct", [2.5e-7, 2e-7, 1.5e-7, 1.5e-7])],
)
def test_the_papers_iterative_setting(load: Load, model: str, rates: list[float]) -> None:
    config = load(f"model={model}", "regime=iterative")
    assert config.rounds == 3 and validate(dataclasses.replace(config, dry_run=True)).partition == TopBottom(k=2)
    assert [config.lr_of(number) for number in (1, 2, 3, 4)] == pytest.approx(rates, rel=1e-12)
    assert load(f"model={model}").lr_of(1) < rates[0]  # its on-policy rate is another


@pytest.mark.parametrize("name", LOG_RATIO)
def test_beta_suits_the_testbed(load: Load, name: str) -> None:
    assert load(f"loss={name}").loss["beta"] == (0.001 if name.startswith("sppo") else 0.3)


def test_beta_suits_the_model_and_the_command_line_wins(load: Load) -> None:
    assert load("loss=dpo", "model=llama3_8b").loss["beta"] == 0.01
    assert load("loss=dpo", "loss.beta=0.1").loss["beta"] == 0.1
    assert load("loss=simpo").loss["beta"] == 2.0


def test_the_command_line_wins_over_what_a_model_chooses(composed: Compose) -> None:
    for overrides in (("model=llama3_8b", "train=sft", "data=pairs"), ("data=pairs", "train=sft", "model=llama3_8b")):
        config = composed(*overrides)
        choices = config.hydra.runtime.choices
        assert (choices["train"], choices["data"], choices["evaluate"]) == ("sft", "pairs", "heldout")
        assert config.train.lr == 2e-5
    assert composed("loss=wmpo", "partition=median").hydra.runtime.choices["partition"] == "median"
    assert composed("regime=on_policy", "partition=mean").hydra.runtime.choices["partition"] == "mean"


def test_several_loggers_go_together_and_none_is_none(load: Load) -> None:
    config = load("logger=[tensorboard,trackio]", "logger.trackio.project=mine")
    assert list(config.logger) == ["tensorboard", "trackio"] and config.logger["trackio"]["project"] == "mine"
    assert list(load().logger) == ["wandb"] and load("logger=none").logger == {}


def test_an_experiment_wins_over_a_model_and_loses_to_the_command_line(composed: Compose, tmp_path: Path) -> None:
    (tmp_path / "table1").mkdir()
    (tmp_path / "table1" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: llama3_8b\n  - override /train: on_policy\n"
        "  - override /loss: mpo\n  - override /partition: median\ntrain:\n  epochs: 3\n"
    )
    search = f"hydra.searchpath=[file://{tmp_path}]"
    config = composed(search, "+table1=mine")
    choices = config.hydra.runtime.choices
    assert (choices["model"], choices["train"], choices["partition"]) == ("llama3_8b", "on_policy", "median")
    assert (config.train.epochs, config.train.lr, config.loss["_target_"]) == (3, 3e-7, "mpo.losses.MPO")
    config = composed(search, "+table1=mine", "train=sft", "train.epochs=5", "loss=simpo")
    assert (config.train.lr, config.train.epochs) == (2e-5, 5)
    assert (config.hydra.runtime.choices["loss"], config.hydra.runtime.choices["partition"]) == ("simpo", "median")


def test_launchers_choose_hydras_own(composed: Compose) -> None:
    slurm = composed("launcher=slurm", "launcher.nodes=2").hydra
    assert slurm.runtime.choices["hydra/launcher"] == "submitit_slurm"
    assert (slurm.launcher.nodes, slurm.launcher.gpus_per_node, slurm.launcher.tasks_per_node) == (2, 8, 1)
    assert composed("launcher=joblib").hydra.runtime.choices["hydra/launcher"] == "joblib"


def test_a_slurm_task_knows_its_machine(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NODEID", "1")
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7")
    launcher = load("model=llama3_8b", "launcher=slurm", "launcher.nodes=2").launcher
    assert (launcher.node_rank, launcher.rendezvous) == (1, "10.0.0.7:29500")


def test_adapters_are_a_choice(load: Load) -> None:
    config = load("model=llama3_8b", "train/lora=adapters", "train.lora.rank=8")
    assert config.train.lora is not None and (config.train.lora.rank, config.train.lora.alpha) == (8, 32.0)
    assert load("model=llama3_8b").train.lora is None


def test_composing_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom hydra import compose, initialize_config_dir\n"
        "from mpo.config.compose import register, typed\nimport mpo.config.messages\nimport mpo.pipeline.rules\n"
        "with initialize_config_dir(register(), version_base='1.3'):\n"
        "    typed(compose('config', ['model=llama3_8b']))\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'datasets'} & set(sys.modules)))\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_scratch_models_vocabulary_is_stated_once(name: str) -> None:
    content = yaml.safe_load((folder("conf") / "model" / f"{name}.yaml").read_text())
    model = content.get("model", content)
    assert model["scratch"]["vocab_size"] == model["architecture"]["vocab_size"]
