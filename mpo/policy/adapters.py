"""Low-rank adapters (LoRA) on a model, by peft."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from mpo.config.training import LoraConfig
from mpo.errors import ConfigError

ADAPTER = "default"
"""peft's name of the one that is trained."""


def is_adapted(module: nn.Module) -> bool:
    """Whether the module is a linear map with an adapter."""
    return isinstance(module, LoraLayer)


def with_adapters(lm: PreTrainedModel, lora: LoraConfig) -> nn.Module:
    """The model frozen, with adapters to be trained.

    Raises:
        ConfigError: maps that the model lacks or that take no adapter.
    """
    head = lm.get_output_embeddings().weight
    modules = [f".{name}" for name, _ in lm.named_modules()]
    for target in lora.target_modules:  # peft is content if one of them is found
        if not any(name.endswith(f".{target}") for name in modules):
            raise ConfigError(f"the model has no '{target}'", "train.lora.target_modules", "name its linear maps")
    for name, module in lm.named_modules():
        short = name.rpartition(".")[2]
        if short in lora.target_modules and getattr(module, "weight", None) is head:
            tied = "" if module is lm.get_output_embeddings() else ", and shares its weights with it"
            raise ConfigError(f"the head takes no adapter{tied}", "train.lora.target_modules", f"remove {short}")
    targets: list[str] | str = list(lora.target_modules) or "all-linear"
    adapters = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft says int and takes any number
        lora_dropout=0.0,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(lm, adapters)  # type: ignore[no-any-return,arg-type]
    except ValueError as error:
        raise ConfigError(f"adapters don't fit the model: {error}", "train.lora", "change target_modules") from error


def adapter_weights(lm: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' own parameters by peft's names; empty for a model without any."""
    names = {f"{name}." for name, module in lm.named_modules() if is_adapted(module)}
    return {
        name: parameter
        for name, parameter in lm.named_parameters()
        if ".lora_" in name and any(name.startswith(module) for module in names)
    }


def save_adapter(lm: nn.Module, state: Mapping[str, Tensor], base: str | None, folder: Path) -> None:
    """Write what ``peft.PeftModel.from_pretrained`` loads onto the model that was adapted.

    Args:
        state: values of :func:`adapter_weights`, whole, on the CPU.
        base: where that model was loaded from.
    """
    assert isinstance(lm, PeftModel)
    weights = get_peft_model_state_dict(lm, state_dict=dict(state), adapter_name=ADAPTER)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / SAFETENSORS_WEIGHTS_NAME)
    config = copy.deepcopy(lm.peft_config[ADAPTER])
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))
