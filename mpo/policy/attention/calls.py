"""What a model's layers ask of attention: noted in a small row's forward pass, tried again where it will be trained."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mpo.layout.batch import TokenBatch
from mpo.policy.attention.backends import Attend, Backend
from mpo.policy.sequence_parallel import key_heads


class AttentionCall(NamedTuple):
    """All of a layer's call but the tensors' values: heads, their widths, and the arguments of
    :class:`mpo.policy.attention.backends.Attend`."""

    heads: int
    key_heads: int
    width: int
    value_width: int
    scale: float
    window: int | None
    softcap: float | None
    has_sinks: bool


def shared_call(call: AttentionCall, processes: int) -> AttentionCall:
    """What each of ``processes`` that share a row has of the call."""
    keys = key_heads(call.key_heads, processes)
    return call._replace(heads=call.heads // processes, key_heads=keys // processes)


def noting(back_end: Backend, calls: set[AttentionCall]) -> Backend:
    """The same back end; ``calls`` gets what layers ask for."""

    def noted(batch: TokenBatch) -> Attend:
        attend = back_end(batch)

        def with_note(
            query_NHD: Tensor,
            key_NGD: Tensor,
            value_NGD: Tensor,
            scale: float,
            window: int | None,
            softcap: float | None = None,
            sinks_H: Tensor | None = None,
        ) -> Tensor:
            heads, key_heads, width, value_width = query_NHD.shape[1], *key_NGD.shape[1:], value_NGD.shape[2]
            has_sinks = sinks_H is not None
            calls.add(AttentionCall(heads, key_heads, width, value_width, scale, window, softcap, has_sinks))
            return attend(query_NHD, key_NGD, value_NGD, scale, window, softcap, sinks_H)

        return with_note

    return noted
