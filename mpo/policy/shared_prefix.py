"""Whether a family's prompts are computed once for all their responses, or once for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mpo.policy import attention
from mpo.policy.attention import AttentionCall, noting
from mpo.policy.full_precision import in_float32
from mpo.policy.module import PolicyModule
from mpo.policy.pieces import laid_out
from mpo.policy.probe import Probe, probe

PROBES = 3
"""Probes of which one has to agree: rounding may send a token of one to another expert, never of all."""


@contextmanager
def for_decoding(policy: PolicyModule) -> Iterator[PreTrainedModel]:
    """The model in evaluation mode and with transformers' own attention; afterwards as it was.

    Layers that are checkpointed drop the cache of keys and values in training mode.
    """
    model, shares, training = policy.base, policy.shares_prefix, policy.training
    policy.eval()
    if shares:
        assert policy.own_attention is not None
        model.set_attn_implementation(policy.own_attention)
    try:
        yield model
    finally:
        if shares:
            model.set_attn_implementation(attention.NAME)
        policy.train(training)


def share_prefix(lm: PreTrainedModel) -> frozenset[AttentionCall]:
    """Compute each prompt once for all its responses, if this family gives the same log-probs that way.

    Compares both layouts on a small set, whole and in pieces, and looks whether one response can be seen from another.
    A family that hands its attention no layout, or whose layers mix tokens in another way (state-space models, say),
    stays with a row for each response.

    For most families equal bits decide. Mixtures of experts compute a token together with whichever others an expert
    gets, so that bits differ, and roundings of bfloat16 send tokens to other experts: of these, and of whatever else
    differs, values are compared in float32, and that no gradient of one response's log-prob reaches the tokens of
    another is the proof that it does not see them. So the answer depends on the architecture, not on its weights.

    Returns what its layers then ask of attention: nothing where each response keeps a row of its own.
    """
    rows = lm.config.get_text_config()._attn_implementation
    if not lm._can_set_attn_implementation():  # its attention is its own
        return frozenset()
    calls: set[AttentionCall] = set()
    policy = PolicyModule(lm, noting(attention.DEFAULT[lm.device.type], calls))

    def logps(of: Probe, *pieces: list[int]) -> Tensor:
        forwards = laid_out([of], [(0, piece) for piece in pieces], policy.shares_prefix)
        with torch.no_grad():
            logps_1K = [policy(one.batch.to(policy.device), one.prompt).logps_BK for one in forwards]
        return torch.cat(logps_1K).sum(0)

    def alike(number: int, exact: bool) -> bool:
        one = probe(lm.config, number)
        lm.set_attn_implementation(rows)
        expected_K = logps(one, [0, 1])
        lm.set_attn_implementation(attention.NAME)
        if not policy.shares_prefix:  # the class refuses it
            return False
        tolerance = 1e-4 if lm.dtype == torch.float32 or not exact else 0.2

        def close(one_K: Tensor, other_K: Tensor) -> bool:
            return torch.allclose(one_K, other_K, rtol=1e-3, atol=tolerance)

        found_K = logps(one, [0, 1])
        if not close(found_K, expected_K):
            return False
        # Another first response must leave the second's log-prob alone: to the last bit, because with the small
        # weights of an untrained model a leak would hide within any tolerance.
        changed_K = logps(one.with_other_first(lm.config), [0, 1])
        if not (bool(found_K[1] == changed_K[1]) if exact else close(found_K[1], changed_K[1])):
            return False
        return close(logps(one, [0], [1]), expected_K)

    def shared() -> bool:
        if alike(0, exact=True):
            return True
        lm.set_attn_implementation(attention.NAME)
        if _reaches(policy, probe(lm.config)):
            return False
        with in_float32(policy):
            return any(alike(number, exact=False) for number in range(PROBES))

    try:
        # A window that only the mask knows would be lost, and no small probe is longer than a real one.
        found = shared() and (not _has_window(lm.config.get_text_config()) or any(call.window for call in calls))
    except Exception:  # transformers' own of many kinds, and those of models that are not its
        found = False
    if not found:
        lm.set_attn_implementation(rows)
    return frozenset(calls) if found else frozenset()


def _reaches(policy: PolicyModule, one: Probe) -> bool:
    """Whether the gradient of the second response's log-prob reaches what the first's tokens are embedded as."""
    embedded: list[Tensor] = []

    def leaf(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    batch = laid_out([one], [(0, [0, 1])], policy.shares_prefix)[0].batch.to(policy.device)
    hook = policy.base.get_input_embeddings().register_forward_hook(leaf)
    try:
        with torch.enable_grad():
            logp = policy(batch).logps_BK[0, 1]
            (gradient_1ND,) = torch.autograd.grad(logp, embedded[:1])
    finally:
        hook.remove()
    of_first = batch.response_index_RT[0, : int(batch.response_lengths_R[0])]
    return bool(gradient_1ND[0, of_first].any())


def _has_window(config: Any) -> bool:
    """Whether some layers see a part of the sequence only."""
    types = getattr(config, "layer_types", None)
    if getattr(config, "attention_chunk_size", None) is not None:
        return True
    if types:
        return any(kind != "full_attention" for kind in types)
    return getattr(config, "sliding_window", None) is not None
