"""Attention's outputs of a row that is forwarded twice, for its log-probs and then for their gradient."""

from __future__ import annotations

from torch import Tensor, nn


class KeptOutputs:
    """One row's, by module: the first forward pass keeps them, the second need not compute them again."""

    def __init__(self) -> None:
        self._outputs: dict[nn.Module, Tensor] = {}

    def of(self, module: nn.Module) -> Tensor | None:
        """``[N,H,D]`` of an earlier forward pass, without gradient; None: this is the first."""
        return self._outputs.get(module)

    def keep(self, module: nn.Module, output_NHD: Tensor) -> None:
        """Keep what the first forward pass computed."""
        self._outputs[module] = output_NHD.detach()
