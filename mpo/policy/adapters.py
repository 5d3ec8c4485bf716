"""Low-rank adapters (LoRA) on a model, by peft."""

from __future__ import annotations

from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from mpo.config.schema import LoraConfig
from mpo.errors import ConfigError


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
