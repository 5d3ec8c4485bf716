"""Files and folders that a configuration names: there, not empty, and room for what a run writes. No torch."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mpo.config import paths
from mpo.config.schema import RunConfig
from mpo.config.wording import hint
from mpo.errors import ConfigError, DataError

DATA_SUFFIXES = (".json", ".jsonl", ".gz", ".parquet")
UNREAD_SUFFIXES = (".csv", ".tsv", ".txt", ".arrow", ".yaml", ".zip", ".zst", ".xlsx")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
SHAPE = (
    *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "tie_word_embeddings"),
    *("attention_bias", "num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size"),
    *("mlp_only_layers", "decoder_sparse_step"),
)
"""Of a model's config.json what plans and rules read."""
NO_LANGUAGE_MODELS = (
    *("ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "ForQuestionAnswering"),
    *("ForMultipleChoice", "ForPreTraining", "RewardModel"),
)
"""Ends of the names of classes that have no head for the next token."""
MIB, GIB = 2**20, 2**30


def is_local(name: str, suffixes: tuple[str, ...] = ()) -> bool:
    """Whether ``name`` means a path here, not a hub name (``name`` or ``owner/name``): by its form, or as it exists."""
    shaped = name.startswith((".", "/", "~")) or name.endswith(suffixes) or name.count("/") > 1
    return shaped or os.path.exists(os.path.expanduser(name))  # False where it may not be looked for


def redacted_name(name: str | None) -> str | None:
    """``name`` as records and cards show it: of what lies on this machine only the last part of its path."""
    return Path(name).name if name is not None and is_local(name, DATA_SUFFIXES) else name


def redacted_source(source: Any) -> Any:
    """``data.source`` as records and cards show it: see :func:`redacted_name`, for each ``path`` of a class's options
    too."""
    if isinstance(source, Mapping):
        return {
            key: redacted_name(value) if key == "path" and isinstance(value, str) else redacted_source(value)
            for key, value in source.items()
        }
    return source


def check_files(config: RunConfig) -> None:
    """Raise DataError or ConfigError for a local file or folder that cannot be what its key says."""
    if isinstance(config.data.source, str):
        check_data(config.data.source, "data.source")
    if config.data.heldout_source is not None:
        check_data(config.data.heldout_source, "data.heldout_source")
    if config.model.path is not None:
        _check_model(config.model.path, "model.path")
    if config.model.reference not in (None, "none"):
        _check_model(str(config.model.reference), "model.reference")
    tokenizer = config.model.tokenizer
    if tokenizer is not None and is_local(tokenizer):
        folder = Path(tokenizer).expanduser()
        if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            raise ConfigError(
                f"'{tokenizer}' holds no tokenizer", "model.tokenizer", "name a folder with tokenizer.json"
            )


def with_own_shape(config: RunConfig) -> RunConfig:
    """``config`` with the shape of the model folder that it names, in place of the chosen model file's.

    Raises:
        ConfigError: the folder's config.json is not readable.
    """
    path = config.model.path
    file = None if path is None or not is_local(path) else Path(path).expanduser() / "config.json"
    if file is None or not file.is_file():
        return config
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        found = found.get("text_config") or found
        shape = {key: found[key] for key in SHAPE if found.get(key) is not None}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"its config.json is broken: {error}", "model.path", "save the model again") from error
    return replace(config, model=replace(config.model, architecture=shape, parameters=None))


def is_shipped(architecture: Mapping[str, Any]) -> bool:
    """Whether one of the package's own model files has exactly these values; tests make all of them."""
    return architecture in _shipped()


@functools.cache
def _shipped() -> list[dict[str, Any]]:
    """Architectures of the package's own models from scratch."""
    texts = [path.read_text(encoding="utf-8") for path in (paths.folder("conf") / "model").glob("*.yaml")]
    files = [yaml.safe_load(text) for text in texts if "scratch:" in text]
    return [content.get("model", content)["architecture"] for content in files]


def check_data(source: str, key: str) -> None:
    """Raise DataError for a local path, named by ``key``, that is no file of data."""
    if not is_local(source, DATA_SUFFIXES + UNREAD_SUFFIXES):
        return
    path = Path(source).expanduser()
    if source.endswith(UNREAD_SUFFIXES):
        raise DataError(f"'{path.name}' is of no known format", key, "give a .jsonl, .jsonl.gz, .json or .parquet file")
    if path.is_dir():
        raise DataError(f"'{source}' is a folder", key, "name a .jsonl, .jsonl.gz, .json or .parquet file")
    if path.exists() and not path.is_file():
        raise DataError(f"'{source}' is a pipe or device", key, "write what it gives to a file, and name that")
    if not path.is_file():
        others = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        near = hint(path.name, others) if others else "give the path of a file"
        raise DataError(f"there is no file '{source}'", key, near if near.startswith("did") else "correct the path")
    if path.stat().st_size == 0:
        raise DataError(f"'{source}' is empty", key, "name a file with response sets")


def _check_model(name: str, key: str) -> None:
    if not is_local(name):
        return
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"there is no folder '{name}'", key, "correct the path, or give a hub name owner/model")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"'{name}' has no config.json", key, "name a folder that save_pretrained wrote")
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        pickled = next((file.name for pattern in PICKLES for file in sorted(folder.glob(pattern))), None)
        if pickled is not None:  # transformers would read it, and whatever code it holds would run
            what = f"'{name}' has its weights as a pickle ({pickled}), but only safetensors are read"
            remedy = (
                "convert it if you trust it: AutoModelForCausalLM.from_pretrained, then save_pretrained('new folder')"
            )
            raise ConfigError(what, key, remedy)
        raise ConfigError(f"'{name}' has no weights", key, "add its *.safetensors files")
    _check_kind(folder / "config.json", key)


def _check_kind(file: Path, key: str) -> None:
    """Refuse what is saved as another kind of model, before its weights are looked at."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind, encodes = (config.get("architectures") or [""])[0], config.get("is_encoder_decoder") is True
    except (ValueError, AttributeError, TypeError, IndexError):  # reported elsewhere
        return
    remedy = "name a folder with a decoder-only language model"
    if isinstance(kind, str) and kind.endswith(NO_LANGUAGE_MODELS):
        raise ConfigError(f"'{file.parent}' holds a {kind}, which predicts no next token", key, remedy)
    if encodes:
        raise ConfigError(f"'{file.parent}' holds an encoder-decoder ({config.get('model_type')})", key, remedy)


def check_disk(folder: str | Path, needed_bytes: int) -> None:
    """Raise ConfigError if the disk of ``folder`` (which need not exist yet) has less than ``needed_bytes`` free."""
    path = Path(folder).expanduser().absolute()
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        unit, name = (GIB, "GiB") if needed_bytes >= GIB else (MIB, "MiB")
        what = f"needs about {needed_bytes / unit:.1f} {name}, {free / unit:.1f} {name} are free"
        raise ConfigError(what, "cache_dir", "name a folder on a larger disk: cache_dir=FOLDER")
