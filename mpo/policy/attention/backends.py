"""What a back end is, and which one a device gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from mpo.layout.batch import TokenBatch
from mpo.policy.attention.dense import DenseAttend
from mpo.policy.attention.flex import FlexAttend
from mpo.policy.cpu.block_attention import BlockAttend


class Attend(Protocol):
    """Attention over one batch's row; what it needs to know of the batch is computed once for all layers."""

    def __call__(
        self,
        query_NHD: Tensor,
        key_NGD: Tensor,
        value_NGD: Tensor,
        scale: float,
        window: int | None,
        softcap: float | None = None,
        sinks_H: Tensor | None = None,
    ) -> Tensor:
        """``[N,H,D]``. G divides H; keys and values may be more than queries: those of skipped tokens come first.

        Args:
            window: a token sees that many positions, its own included.
            softcap: a score s becomes softcap · tanh(s / softcap) (gemma2).
            sinks_H: a score of each head beside those of the keys, which takes its share of the probability and has no
                value (gpt_oss).
        """


class CpuAttend(BlockAttend):
    """Blocks of responses; where scores are capped or have sinks a dense mask, which is slower."""

    def __init__(self, batch: TokenBatch) -> None:
        super().__init__(batch)
        self._dense = DenseAttend(batch)

    def __call__(  # type: ignore[override]  # the order is that of all back ends
        self,
        query_NHD: Tensor,
        key_NGD: Tensor,
        value_NGD: Tensor,
        scale: float,
        window: int | None,
        softcap: float | None = None,
        sinks_H: Tensor | None = None,
        known_NHD: Tensor | None = None,
    ) -> Tensor:
        """See :class:`Attend`; for ``known_NHD`` :class:`mpo.policy.cpu.block_attention.BlockAttend`."""
        if softcap is not None or sinks_H is not None:
            return self._dense(query_NHD, key_NGD, value_NGD, scale, window, softcap, sinks_H)
        return super().__call__(query_NHD, key_NGD, value_NGD, scale, window, known_NHD)


Backend = Callable[[TokenBatch], Attend]
DEFAULT: dict[str, Backend] = {"cpu": CpuAttend, "cuda": FlexAttend}
"""By the batch's type of device."""
