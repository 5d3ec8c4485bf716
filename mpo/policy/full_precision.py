"""Forward passes in float32 of a model in another precision, one layer's weights widened at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within, ``model`` computes in float32; afterwards its weights are the very tensors that they were.

    Roundings of bfloat16 decide near-ties between experts, after which two equal computations differ by far more than
    by a rounding: of such models only float32 tells whether two layouts are the same.
    """
    widened: list[list[tuple[Tensor, Tensor]]] = []

    def widen(tensors: list[Tensor]) -> Any:
        def hook(*_: Any) -> None:
            narrow = [each for each in tensors if each.is_floating_point() and each.dtype != torch.float32]
            widened.append([(each, each.data) for each in narrow])
            for each in narrow:
                each.data = each.data.float()

        return hook

    def restore(*_: Any) -> None:
        for tensor, data in widened.pop():
            tensor.data = data

    hooks = []
    for module, tensors in _units(model):
        hooks += [module.register_forward_pre_hook(widen(tensors)), module.register_forward_hook(restore)]
    try:
        yield
    finally:
        while widened:  # a forward pass that failed
            restore()
        for hook in hooks:
            hook.remove()


def _units(module: nn.Module) -> Iterator[tuple[nn.Module, list[Tensor]]]:
    """Modules to widen at their call and what to widen: layers whole, what is outside of them one by one."""
    if isinstance(module, nn.ModuleList):
        for layer in module:
            yield layer, _tensors(layer, True)
    elif any(isinstance(part, nn.ModuleList) for part in module.modules()):
        yield module, _tensors(module, False)
        for child in module.children():
            yield from _units(child)
    else:
        yield module, _tensors(module, True)


def _tensors(module: nn.Module, recurse: bool) -> list[Tensor]:
    return list(chain(module.parameters(recurse), module.buffers(recurse)))
