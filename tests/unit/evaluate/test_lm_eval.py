"""Tasks of lm_eval on a tiny policy: its numbers, and what is one line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoTokenizer, LlamaForCausalLM

from mpo.cache.code_version import code_version
from mpo.config.paths import folder as package_folder
from mpo.config.targets import build
from mpo.config.training import Precision
from mpo.errors import ConfigError, UserError
from mpo.evaluate.base import Evidence, Measure, Results
from mpo.evaluate.lm_eval.measure import Backend, LMEval
from mpo.evaluate.policy_measure import PolicyFiles, read_results, write_results
from mpo.evaluate.records import Baseline
from tests.unit.evaluate.local_tasks import CHOICES, policy, task_files


@pytest.fixture(autouse=True)
def no_list_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm_eval asks pip what is installed, which takes five times as long as all else here."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return task_files(tmp_path_factory.mktemp("lm_eval") / "tasks")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> PolicyFiles:
    return policy(tmp_path_factory.mktemp("start") / "policy")


def measure(tasks: Path, *names: str, **options: Any) -> LMEval:
    return LMEval(**{"tasks": list(names), "include_path": str(tasks), "precision": Precision.fp32, **options})


def choice_by_hand(policy: PolicyFiles) -> list[float]:
    """Whether the right choice is the likeliest after the question in Llama 3's format, a blank before it or not."""
    model, tokenizer = LlamaForCausalLM.from_pretrained(policy.model), AutoTokenizer.from_pretrained(policy.tokenizer)
    right = []
    for row in CHOICES:
        turns = [{"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        head = tokenizer(text, add_special_tokens=False)["input_ids"]
        totals = []
        for choice in row["choices"]:
            ids = tokenizer(text + choice, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            places = range(len(head), len(ids))
            totals.append(sum(float(logps[place - 1, ids[place]]) for place in places))
        right.append(float(totals.index(max(totals)) == row["answer"]))
    return right


def test_its_numbers_and_their_change(tasks: Path, start: PolicyFiles, tmp_path: Path) -> None:
    both = measure(tasks, "bricks", "sums")
    found = []
    for seed in (0, 1):
        out = tmp_path / f"out{seed}"
        out.mkdir()
        one = start if seed == 0 else policy(tmp_path / "trained", seed)
        write_results(out, both.measure_policy(one, out))
        found.append(read_results(out))
    before, after = found
    assert [each.metric for each in before] == ["lm_eval/bricks/acc", "lm_eval/sums/exact_match/strict_match"]
    assert before[0].values == choice_by_hand(start) and before[0].n == 12 and before[1].n == 6
    assert before[0].values != after[0].values
    kept = sorted(path.relative_to(tmp_path / "out0").as_posix() for path in (tmp_path / "out0").rglob("*.*"))
    assert kept == ["lm_eval.json", "results.json", "samples/bricks.jsonl", "samples/sums.jsonl"]
    raw = json.loads((tmp_path / "out0" / "lm_eval.json").read_text())
    assert raw["config"]["fewshot_seed"] == 1234 and raw["versions"] == {"bricks": 1.0, "sums": 1.0}
    prompt = json.loads((tmp_path / "out0" / "samples" / "bricks.jsonl").read_text().splitlines()[0])["arguments"]
    assert str(prompt).count("<|begin_of_text|>") == 3  # once in each of the three choices' texts

    evidence = Evidence((), None, None, 0, lambda done, total, what: None, results=Results(before, after))
    findings = both.measure(evidence)
    estimates, by_prompt = findings.estimates, {each.metric: each for each in findings.by_prompt}
    plain, change = estimates[:2]
    assert (plain.key, change.key) == ("benchmark/lm_eval/bricks/acc", "benchmark/lm_eval/bricks/acc/change")
    assert (plain.value, plain.n) == (sum(after[0].values) / 12, 12)
    assert plain.baselines == (Baseline("starting policy", before[0].value, before[0].standard_error),)
    pairs = torch.tensor(after[0].values) - torch.tensor(before[0].values)
    assert change.value == pytest.approx(float(pairs.mean()))
    assert change.standard_error == pytest.approx(float(pairs.std() / 12**0.5))
    assert list(by_prompt["lm_eval/bricks/acc/change"].values) == pairs.tolist()
    assert len(set(by_prompt["lm_eval/bricks/acc"].prompts)) == 12
    other = replace(after[0], prompts=["other"])
    with pytest.raises(UserError, match="the starting policy was asked other questions for lm_eval/bricks/acc"):
        both.measure(replace(evidence, results=Results(before, [other])))


def test_a_limit_examples_and_a_run_that_was_stopped(
    tasks: Path, start: PolicyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = measure(tasks, "bricks", limit=4, fewshot=2, apply_chat_template=False)
    (first,) = few.measure_policy(start, tmp_path)
    assert first.n == len(first.values) == 4
    row = json.loads((tmp_path / "samples" / "bricks.jsonl").read_text().splitlines()[0])
    assert str(row["arguments"]).count("of a brick.") == 3 * 3 and "start_header" not in str(row["arguments"])
    with monkeypatch.context() as patch:  # stopped while the last file is written
        patch.setattr("mpo.evaluate.lm_eval.tasks.write_json", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            few.measure_policy(start, tmp_path)
    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda *given, **named: pytest.fail("asked again"))
    assert few.measure_policy(start, tmp_path) == [first]


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["bricks", "brick"], {"include_path": None}, r"tasks: lm_eval has no task 'bricks'; `lm-eval ls tasks`"),
        (["far_away"], {}, r"task far_away cannot be loaded: ConnectionError: Couldn't reach.*; load its"),
        (["unsafe"], {}, r"tasks: task unsafe runs code that the policy writes; leave it out, or set"),
        (["sums"], {"fewshot": 3}, r"fewshot: task sums is fixed to no examples; leave"),
    ],
)
def test_a_task_that_cannot_be_asked_is_one_line_before_a_model_is_loaded(
    tasks: Path, tmp_path: Path, names: list[str], options: dict[str, Any], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    nothing = PolicyFiles(str(tmp_path / "none"), None, str(tmp_path / "none"), True, None, False)
    if options.get("include_path", tasks) is None:  # reading the package's own takes seconds
        monkeypatch.setattr("mpo.evaluate.lm_eval.tasks.TaskManager", lambda: type("Few", (), {"all_tasks": ["gsm8k"]}))
    with pytest.raises(ConfigError, match=said):
        measure(tasks, *names, **options).measure_policy(nothing, tmp_path)


def test_a_policy_without_chat_template_is_one_line(tasks: Path, start: PolicyFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no chat template; name model\.chat_template, or .*=false"):
        measure(tasks, "bricks").measure_policy(replace(start, has_chat_template=False), tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": []}, "tasks: has no value"),
        ({"tasks": ["a", "a"]}, "a task is named twice"),
        ({"limit": 0}, "limit: 0 is out of range"),
        ({"gpu_memory": 1.5}, "gpu_memory: 1.5 is out of range"),
        ({"include_path": "nowhere"}, "include_path: there is no folder nowhere"),
        ({"backend": "tpu"}, "backend"),
    ],
)
def test_options_out_of_range_are_one_line(options: dict[str, Any], said: str) -> None:
    node = {"_target_": "mpo.evaluate.lm_eval.LMEval", "tasks": ["gsm8k"], **options}
    with pytest.raises(ConfigError, match=said):
        build(node, Measure, (), "evaluate.measures.lm_eval")  # type: ignore[type-abstract]


def test_vllms_cpu_build_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ConfigError, match=r"^measure\.backend: lm_eval knows vLLM by the package vllm alone"):
        LMEval(["gsm8k"], backend=Backend.vllm).check()


def test_its_version_counts_and_the_file_has_the_defaults() -> None:
    node = yaml.safe_load((package_folder("conf") / "evaluate" / "lm_eval.yaml").read_text())["measures"]["lm_eval"]
    assert build(node, Measure, (), "x") == LMEval(node["tasks"])  # type: ignore[type-abstract]
    assert "lm_eval" in code_version("measure_policy", {"measure": node}).packages
    assert "lm_eval" not in code_version("measure_policy", {}).packages
