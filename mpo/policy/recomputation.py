"""Layers that keep their input alone and are computed again in the backward pass: none, every n-th, or all of them."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mpo.errors import ConfigError

KEY = "train.activation_checkpointing"


def recompute_layers(lm: PreTrainedModel, every: int) -> None:
    """Have every ``every``-th layer of ``lm``, the first one included, computed again; 0: none.

    Layers are counted in each list of layers, so that those of an image encoder do not shift the text model's. Layers
    that are computed again have to be in training mode, so their dropout is off: not in the config, which is exported.

    Raises:
        ConfigError: a family that can't compute layers again, or only all of them.
    """
    if not every:
        return
    kind = lm.config.model_type
    try:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(f"model type {kind} can't compute its layers again", KEY, "set it to false") from error
    if every > 1:
        lists = [_layers(module) for module in lm.modules() if isinstance(module, nn.ModuleList)]
        if not any(lists):
            raise ConfigError(f"model type {kind} can't compute some of its layers again", KEY, "set it to 1 or false")
        for layers in lists:
            for number, layer in enumerate(layers):
                layer.gradient_checkpointing = number % every == 0
    _no_dropout(lm)


def recomputed(lm: nn.Module) -> set[nn.Module]:
    """Modules that are computed again: what they would keep for the backward pass is not kept anyway."""
    flagged = [module for module in lm.modules() if getattr(module, "gradient_checkpointing", False) is True]
    # Models have the flag beside their layers; in those of old it is the only one, and they ask it for every layer.
    layers = [module for module in flagged if isinstance(module, GradientCheckpointingLayer)]
    return {part for module in layers or flagged for part in module.modules()}


def _layers(modules: nn.ModuleList) -> list[GradientCheckpointingLayer]:
    return [module for module in modules if isinstance(module, GradientCheckpointingLayer)]


def _no_dropout(lm: nn.Module) -> None:
    for module in lm.modules():
        if getattr(module, "gradient_checkpointing", False) is True:
            for name, value in vars(module).items():
                if isinstance(value, float) and ("dropout" in name or "pdrop" in name or name == "layerdrop"):
                    setattr(module, name, 0.0)
