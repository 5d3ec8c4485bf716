"""Tasks of lm_eval on one policy: the one place that imports the package."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from mpo.cache.artifacts import write_json
from mpo.data.tokenizer import load_tokenizer
from mpo.engine import DTYPES, engine_options
from mpo.errors import ConfigError
from mpo.evaluate.lm_eval.options import WHERE, Backend, Options
from mpo.evaluate.policy_measure import PolicyFiles
from mpo.evaluate.prompts import numbered
from mpo.evaluate.records import PolicyResult
from mpo.failures.libraries import IN_LOG, library_errors

if TYPE_CHECKING:
    from lm_eval.api.model import LM

RAW_FILE = "lm_eval.json"
SAMPLES_FOLDER = "samples"
REQUESTS = "requests"
"""What has been answered so far, kept by lm_eval while it works, for a run that is stopped."""
BOOTSTRAPS = 1000
"""For the standard errors of metrics that are no means, as on lm_eval's command line."""
SAME = 1e-6
TASKS = f"{WHERE}.tasks"
KEY_DIGITS = 16
NO_NETWORK = "load its data once where the hub can be reached and bring the cache (HF_HOME), or name local task files"


def run_tasks(measure: Options, policy: PolicyFiles, folder: Path) -> list[PolicyResult]:
    """Evaluate the policy; all of lm_eval's own results but the questions lie in ``folder/lm_eval.json``, the questions
    with their answers in ``folder/samples``.

    Raises:
        ConfigError: a task that is unknown, lacks its data or a package, would run code of the policy's without leave,
            or has a fixed number of examples where another is asked for; no chat template; what lm_eval raises.
    """
    if measure.apply_chat_template and not policy.has_chat_template:
        remedy = f"name model.chat_template, or {WHERE}.apply_chat_template=false"
        raise ConfigError("the policy's tokenizer has no chat template", WHERE, remedy)
    manager = _manager(measure)
    _check_tasks(measure, manager)
    with library_errors("lm_eval stopped", TASKS, _remedy):
        found: Any = lm_eval.simple_evaluate(
            _model(measure, policy),
            tasks=list(measure.tasks),
            num_fewshot=measure.fewshot,
            batch_size=measure.batch_size,
            use_cache=str(folder / REQUESTS),
            limit=measure.limit,
            bootstrap_iters=BOOTSTRAPS,
            apply_chat_template=measure.apply_chat_template,
            fewshot_as_multiturn=measure.apply_chat_template and measure.fewshot_as_multiturn,
            task_manager=manager,
            random_seed=measure.seed,
            numpy_random_seed=measure.seed,
            torch_random_seed=measure.seed,
            fewshot_random_seed=measure.seed,
            confirm_run_unsafe_code=measure.allow_unsafe_code,
        )
    samples = found.pop("samples")
    write_json(folder / RAW_FILE, json.loads(json.dumps(found, default=str)))
    (folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
    for task, rows in samples.items():
        with open(folder / SAMPLES_FOLDER / f"{task}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, default=str, ensure_ascii=False) + "\n" for row in rows)
    for left in folder.glob(f"{REQUESTS}_rank*"):
        left.unlink()
    return results_of(found, samples)


def results_of(found: Mapping[str, Any], samples: Mapping[str, list[dict[str, Any]]]) -> list[PolicyResult]:
    """Every metric of tasks and groups, ``lm_eval/TASK/METRIC`` or ``lm_eval/TASK/METRIC/FILTER``; a task below a group
    that has numbers of its own is left to ``lm_eval.json``.

    Args:
        found: lm_eval's results.
        samples: its answers by task.
    """
    below = {
        task for group in found.get("groups", {}) for task in _tasks_of(group, found["group_subtasks"]) if task != group
    }
    results = []
    for name, row in {**found["results"], **found.get("groups", {})}.items():
        if name in below:
            continue
        rows = [one for task in _tasks_of(name, found["group_subtasks"]) for one in samples.get(task, [])]
        for key, value in row.items():
            metric, _, chosen = key.partition(",")
            if not chosen or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = row.get(f"{metric}_stderr,{chosen}")
            asked = [one for one in rows if one["filter"] == chosen]
            values = _values(asked, metric, float(value))
            label = metric if chosen == "none" else f"{metric}/{chosen.replace('-', '_')}"
            results.append(
                PolicyResult(
                    f"lm_eval/{name}/{label}",
                    float(value),
                    float(error) if isinstance(error, int | float) else None,
                    len(asked),
                    numbered(str(one["doc_hash"])[:KEY_DIGITS] for one in asked),
                    values,
                )
            )
    return results


def _tasks_of(name: str, children: Mapping[str, list[str]]) -> list[str]:
    """The tasks below a group, at any depth; a task's own name."""
    below = children.get(name)
    return [task for child in below for task in _tasks_of(child, children)] if below else [name]


def _values(rows: list[dict[str, Any]], metric: str, value: float) -> list[float]:
    """One number a question if the metric is their mean."""
    numbers = [one.get(metric) for one in rows]
    values = [float(one) for one in numbers if isinstance(one, int | float)]
    if not values or len(values) < len(numbers) or abs(sum(values) / len(values) - value) > SAME:
        return []
    return values


def _manager(measure: Options) -> TaskManager:
    """lm_eval's index of tasks; of the user's own files alone where all are there: it reads some 14,000 of its own."""
    if measure.include_path is None:
        return TaskManager()
    folder = str(Path(measure.include_path).expanduser())
    with library_errors("task files cannot be read", TASKS, _remedy):
        own = TaskManager(include_path=folder, include_defaults=False)
        return own if set(measure.tasks) <= set(own.all_subtasks) else TaskManager(include_path=folder)


def _check_tasks(measure: Options, manager: TaskManager) -> None:
    """Load every task, its data too, before any model."""
    where = TASKS
    if measure.allow_unsafe_code:
        os.environ.setdefault("HF_ALLOW_CODE_EVAL", "1")  # what code_eval's tasks ask for
    for name in measure.tasks:
        if name not in manager.all_tasks:
            raise ConfigError(f"lm_eval has no task {name!r}", where, "`lm-eval ls tasks` lists them")
        with library_errors(f"task {name} cannot be loaded", TASKS, _remedy):
            loaded = manager.load([name])["tasks"]
        for task in loaded.values():
            if getattr(task, "UNSAFE_CODE", False) and not measure.allow_unsafe_code:
                remedy = f"leave it out, or set {WHERE}.allow_unsafe_code=true in a sandbox"
                raise ConfigError(f"task {name} runs code that the policy writes", where, remedy)
            own = task.get_config("num_fewshot")
            if own == 0 and measure.fewshot:  # which lm_eval would keep without a word
                remedy = f"leave {WHERE}.fewshot out, or the task"
                raise ConfigError(f"task {name} is fixed to no examples", f"{WHERE}.fewshot", remedy)


def _model(measure: Options, policy: PolicyFiles) -> LM:
    """lm_eval's wrapper around the policy; transformers' model is loaded as everywhere here, from safetensors alone."""
    common: dict[str, Any] = {"max_length": measure.max_length, "think_end_token": policy.thought_end}
    if measure.backend is Backend.hf:
        from mpo.policy.devices import join_group
        from mpo.policy.pretrained import load_model

        model = load_model(policy.model, policy.revision, measure.precision, policy.trust_remote_code)
        tokenizer = load_tokenizer(policy.tokenizer, trust_remote_code=policy.trust_remote_code)
        wrapper = get_model("hf")
        return wrapper(model.to(join_group()), tokenizer=tokenizer, batch_size=measure.batch_size, **common)  # type: ignore[no-any-return]
    return get_model("vllm")(  # type: ignore[no-any-return]
        policy.model,
        dtype=DTYPES[measure.precision],
        revision=policy.revision,
        tokenizer=policy.tokenizer,
        trust_remote_code=policy.trust_remote_code,
        tensor_parallel_size=measure.tensor_parallel,
        gpu_memory_utilization=measure.gpu_memory,
        seed=measure.seed,
        batch_size="auto",
        **common,
        **engine_options(measure.max_length or 0, eager=False),
    )


def _remedy(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name}"
    return NO_NETWORK if isinstance(error, ConnectionError | FileNotFoundError) else IN_LOG
