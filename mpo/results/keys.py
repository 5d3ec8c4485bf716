"""What makes two runs the same: hashes of what their results depend on. No torch."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from mpo.cache.artifacts import canonical_json
from mpo.config.schema import RunConfig
from mpo.config.training import FREE, MemoryChoice, MemorySettings
from mpo.evaluate.records import Estimate
from mpo.plain import finite, to_plain
from mpo.train.best import REWARD

_OF_CHOICE = ("evaluate_every", "keep_best", "stop_after")
"""Keys of a training that count only where evaluations choose the policy: they change nothing else."""
UNCOUNTED = (
    *("name", "dry_run", "cache_dir", "results", "allow_targets", "logger", "launcher", "evaluate.batch"),
    "sweep.stop_behind",
    *(f"train.{key}" for key in FREE),
    *(f"model.scratch.sft.{key}" for key in FREE),
    *(f"data.expected_{key}" for key in ("sets", "heldout", "responses", "prompt_tokens", "response_tokens")),
)
"""Config keys that cannot change a run's results: where and how it ran, what only its plan reads."""
_OF_START = ("path", "revision", "tokenizer", "chat_template", "template_arguments", "architecture", "scratch")
"""Keys of ``model`` that decide the starting policy."""


def result_config(config: RunConfig | Mapping[str, Any]) -> dict[str, Any]:
    """A complete configuration, typed or as :func:`mpo.plain.to_plain` made it, without what cannot change results."""
    plain: dict[str, Any] = copy.deepcopy(to_plain(config))
    for key in UNCOUNTED:
        _drop(plain, key)
    for training in ("train", "model.scratch.sft"):
        if _at(plain, f"{training}.keep_best") is None:
            for key in _OF_CHOICE:
                _drop(plain, f"{training}.{key}")
        if not _at(plain, f"{training}.stop_behind"):
            _drop(plain, f"{training}.stop_behind")
        if _at(plain, f"{training}.keep_best") != REWARD:
            _drop(plain, f"{training}.reward_prompts")
        _settle_memory(_at(plain, training))
    model = plain.get("model")
    if isinstance(model, dict) and model.get("path") is not None:  # a run takes them from the model's own files
        model.pop("architecture", None)
        model.pop("parameters", None)
    return plain


def run_key(config: RunConfig | Mapping[str, Any]) -> str:
    """20 hexadecimal digits: the configuration with its seed, whatever code and libraries it runs with."""
    return _digest(result_config(config))


def config_key(config: RunConfig | Mapping[str, Any]) -> str:
    """20 hexadecimal digits: the same without the seed, so that runs over seeds have one."""
    return _digest({key: value for key, value in result_config(config).items() if key != "seed"})


def start_key(config: Mapping[str, Any]) -> str:
    """20 hexadecimal digits: the starting policy."""
    model = result_config(config).get("model", {})
    return _digest({key: model.get(key) for key in _OF_START})


def run_id(config: Mapping[str, Any], versions: Mapping[str, str], commit: str, estimates: Sequence[Estimate]) -> str:
    """20 hexadecimal digits: the configuration, the code, and what came out.

    What came out counts because a commit does not tell changes that were never committed apart, nor a seed two cards.
    """
    return _digest([result_config(config), dict(versions), commit, finite(to_plain(estimates))])


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(_one_number(value)).encode()).hexdigest()[:20]


def _one_number(value: Any) -> Any:
    """With 1.0 written as 1: a free-form option may be either."""
    if isinstance(value, Mapping):
        return {key: _one_number(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_one_number(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _settle_memory(training: Any) -> None:
    """Drop memory settings that were chosen for a card; in place of null put what the run takes, as version 0.4.0
    recorded it."""
    if not isinstance(training, dict):
        return
    usual = to_plain(MemorySettings())
    if training.pop("memory", None) == MemoryChoice.auto.name:
        for name in usual:
            training.pop(name, None)
        return
    training |= {name: usual[name] for name in usual if training.get(name, 0) is None}
    if training.get("activation_checkpointing") in (0, 1):  # which were false and true
        training["activation_checkpointing"] = bool(training["activation_checkpointing"])


def _at(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _drop(node: Any, key: str) -> None:
    first, _, rest = key.partition(".")
    if not isinstance(node, dict):
        return
    if rest:
        _drop(node.get(first), rest)
    else:
        node.pop(first, None)
