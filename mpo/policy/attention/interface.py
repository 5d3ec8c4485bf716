"""The function that transformers calls in every layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mpo.policy.attention.backends import Attend, CpuAttend
from mpo.policy.attention.outputs import KeptOutputs
from mpo.policy.attention.prompt import Across
from mpo.policy.sequence_parallel import SequenceShares

NAME = "mpo_shared_prefix"
ALONE = SequenceShares()
UNKNOWN_HERE = ("position_bias",)
"""Things that a family may do to its attention's logits, and that no back end does."""


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared_prefix: Attend | None = None,
    kept_prompt: Across | None = None,
    kept_outputs: KeptOutputs | None = None,
    sequence: SequenceShares = ALONE,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query ``[1,H,N,D]``, key and value ``[1,G,N,D]`` to ``[1,N,H,D]``.

    Without ``shared_prefix`` it is transformers' own scaled-dot-product attention. With ``kept_prompt`` the row's first
    keys and values are those of a prompt that was forwarded before. ``kept_outputs`` gets what this call returns, or
    tells it, where the row was forwarded before. With ``sequence`` N are this process's tokens of the row; all of the
    above is of the whole row, and of the heads that this process computes.

    Raises:
        ValueError: the family changes its attention's logits in a way that no back end knows.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    softcap, sinks_H = kwargs.get("softcap"), sequence.heads(kwargs.get("s_aux"))
    for name in UNKNOWN_HERE:
        if kwargs.get(name) is not None:
            raise ValueError(f"attention over shared prompts knows no {name}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = kwargs.get("sliding_window")

    def attend(query_1NHD: Tensor, key_1NGD: Tensor, value_1NGD: Tensor) -> Tensor:
        query_NHD, key_NGD, value_NGD = query_1NHD[0], key_1NGD[0], value_1NGD[0]
        if kept_prompt is not None:
            key_NGD, value_NGD = kept_prompt((module, "key"), key_NGD), kept_prompt((module, "value"), value_NGD)
        # The other back ends have no way to keep what they would compute again.
        if kept_outputs is None or not isinstance(shared_prefix, CpuAttend):
            return shared_prefix(query_NHD, key_NGD, value_NGD, scale, window, softcap, sinks_H).unsqueeze(0)
        known_NHD = kept_outputs.of(module)
        out_NHD = shared_prefix(query_NHD, key_NGD, value_NGD, scale, window, softcap, sinks_H, known_NHD)
        if known_NHD is None:
            kept_outputs.keep(module, out_NHD)
        return out_NHD.unsqueeze(0)

    return sequence.attention(attend, *(tensor.transpose(1, 2) for tensor in (query, key, value))), None


# There is no AttentionMaskInterface of that name, so transformers makes no mask: it would be dense over the row, and it
# would look into the positions for packed sequences, which a device would have to be waited for.
AttentionInterface.register(NAME, shared_prefix_attention)
