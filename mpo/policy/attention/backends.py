"""What a back end is, and which one a device gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from mpo.layout.batch import TokenBatch
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


Backend = Callable[[TokenBatch], Attend]
DEFAULT: dict[str, Backend] = {"cpu": BlockAttend, "cuda": FlexAttend}
"""By the batch's type of device."""
