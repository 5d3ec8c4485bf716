"""The transformers configuration of a model that is trained from scratch, and whether transformers can make it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from mpo.config.wording import hint
from mpo.errors import ConfigError

WHERE = "model.architecture"
LEGACY = frozenset({"rope_theta", "rope_scaling", "torch_dtype", "dtype"})
"""Names that transformers takes and stores under others."""
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
TRIED = 20_000_000
"""Most parameters of a model that is also run once, on zeros."""
Made = TypeVar("Made")


def check_architecture(architecture: Mapping[str, Any]) -> None:
    """Build the model without memory for its weights (on the meta device), and a small one run.

    Raises:
        ConfigError: a value that transformers refuses, that the model type does not have, or that is the tokenizer's.
    """
    for name in SPECIAL:
        if name in architecture:
            raise ConfigError("is the tokenizer's, which is made for the model", f"{WHERE}.{name}", "leave it out")
    config = scratch_config(architecture, **dict.fromkeys(SPECIAL, 0))
    kind = type(config)
    known = {*kind().to_dict(), *kind.attribute_map, *LEGACY}
    for name in architecture:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
            remedy = f"did you mean '{near[0]}'?" if near else f"leave it out: '~{WHERE}.{name}'"
            raise ConfigError(f"a {config.model_type} has no '{name}'", f"{WHERE}.{name}", remedy)
    with torch.device("meta"):
        model = scratch_model(config)
    if model.num_parameters() <= TRIED:
        _explained(config.model_type, lambda: _forward(model))


def scratch_config(architecture: Mapping[str, Any], **special: Any) -> PreTrainedConfig:
    """The configuration; ``special`` are values that the tokenizer gives.

    Raises:
        ConfigError: a value that transformers refuses.
    """
    values = {**architecture, **special}
    kind = values.pop("model_type")
    if kind not in CONFIG_MAPPING_NAMES:
        raise ConfigError(f"transformers has no '{kind}'", f"{WHERE}.model_type", hint(str(kind), CONFIG_MAPPING_NAMES))
    return _explained(kind, lambda: AutoConfig.for_model(kind, **values))


def scratch_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model with random weights.

    Raises:
        ConfigError: transformers cannot make it.
    """
    return _explained(config.model_type, lambda: AutoModelForCausalLM.from_config(config))


def _forward(model: PreTrainedModel) -> None:
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
        model(input_ids=torch.zeros(1, 3, dtype=torch.long), use_cache=False)


def _explained(kind: str, make: Callable[[], Made]) -> Made:
    try:
        return make()
    except Exception as error:  # whatever a family's own code raises at values that it does not expect
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = f"transformers cannot make a {kind}: {' '.join(lines[:2]) or type(error).__name__}"
        raise ConfigError(what, WHERE, "correct the values") from error
