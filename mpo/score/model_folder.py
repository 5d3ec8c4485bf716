"""What a reward model's folder tells before anything is loaded. No torch."""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

from mpo.config.files import PICKLES, WEIGHTS, is_local
from mpo.errors import ConfigError

PAIR_KEYS = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "n_tasks")
"""Of the config.json of a model that compares pairs as PairRM does."""
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Head(Enum):
    """What turns hidden states into a score; :mod:`mpo.score.heads` has a class for each."""

    linear = "linear"
    armorm = "armorm"
    qrm = "qrm"
    urm = "urm"
    inf_orm = "inf_orm"
    grm = "grm"
    token_logit = "token_logit"


def model_location(path: str) -> str:
    """``path`` as transformers takes it: ``~`` resolved where it is a folder."""
    return str(Path(path).expanduser()) if is_local(path) else path


def read_model_config(path: str, key: str = "score.path") -> dict[str, Any] | None:
    """The folder's config.json; None for a hub name, which is looked at when it is loaded.

    Raises:
        ConfigError: at ``key``: there is no such folder, its config.json is not readable, it has no weights, or has
            them only as pickles, which can run code when read.
    """
    if not is_local(path):
        if not HUB_NAME.fullmatch(path):
            raise ConfigError(f"'{path}' is neither a folder nor a hub name", key, "give a folder or owner/model")
        return None
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"there is no folder '{path}'", key, "correct the path, or give a hub name owner/model")
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(f"'{path}' has no config.json", key, "name a folder that save_pretrained wrote")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"its config.json is broken: {error}", key, "save the model again") from error
    if not isinstance(found, dict):
        raise ConfigError("its config.json holds no options", key, "save the model again")
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        pickled = next((each.name for pattern in PICKLES for each in sorted(folder.glob(pattern))), None)
        if pickled is not None:
            what = f"'{path}' has its weights as a pickle ({pickled}), but only safetensors are read"
            raise ConfigError(what, key, "convert it if you trust it: save_pretrained with safetensors")
        raise ConfigError(f"'{path}' has no weights", key, "add its *.safetensors files")
    return found


def architecture(config: dict[str, Any]) -> str:
    """The class that saved the model; empty where it is not said."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def label_count(config: dict[str, Any]) -> int:
    """Outputs of a classification head, as transformers reads them: ``id2label``, else ``num_labels``, else two."""
    labels = config.get("id2label")
    if isinstance(labels, dict) and labels:
        return len(labels)
    count = config.get("num_labels")
    return count if isinstance(count, int) else 2
