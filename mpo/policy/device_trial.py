"""What a policy needs of the device that it will run on, tried there before anything is computed.

Its layout was tried on the CPU, when it was loaded, with another back end. FlexAttention may lower some widths and
masks on one card and not on another, and a compiler may fail: better now than in the middle of a run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mpo.errors import ConfigError, cut, first_line
from mpo.layout.batch import TokenBatch, collate
from mpo.policy.attention import DEFAULT, Attend, AttentionCall, Backend, DenseAttend, shared_call
from mpo.policy.devices import broadcast_from_rank0
from mpo.policy.layers import compile_fused, fault_when_compiled
from mpo.policy.module import PolicyModule

KEY = "train.sequence_parallel"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Of values and gradients, relative to the largest of them; by the precision of queries and keys."""


class _Tokens(NamedTuple):
    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]


def prepare_for(
    policy: PolicyModule,
    device: torch.device,
    compile: bool | None = None,
    on_warning: Callable[[str], None] | None = warnings.warn,
    sequence_parallel: int = 1,
) -> None:
    """Choose layout and compilation by what works on ``device``; the same in every process of the group.

    Where the device's back end fails, or differs from the dense mask, each response gets a row of its own.

    Args:
        policy: as it was loaded; it need not be on the device.
        compile: norms and gates; None: on CUDA.
        on_warning: gets a line for what is not done; None in all processes but one.
        sequence_parallel: processes that forward a row together.

    Raises:
        ConfigError: this model's rows cannot be forwarded by several processes.
    """

    def warn(line: str) -> None:
        if on_warning is not None:
            on_warning(line)

    dtype, several = policy.base.dtype, sequence_parallel > 1
    if several:
        _check_heads(policy.attention_calls, sequence_parallel)
    if policy.attention_calls:
        calls = {shared_call(call, sequence_parallel) for call in policy.attention_calls}
        fault = broadcast_from_rank0(attention_fault(DEFAULT[device.type], calls, device, dtype))
        if fault and several:
            raise ConfigError(f"only rows of shared prompts are split over processes: {fault}", KEY, "leave it out")
        if fault:
            assert policy.own_attention is not None
            policy.base.set_attn_implementation(policy.own_attention)
            warn(f"responses do not share their prompt, each has a row of its own: {fault}")
    if device.type == "cuda" if compile is None else compile:
        fault = broadcast_from_rank0(fault_when_compiled(device, dtype))
        if fault:
            warn(f"norms and gates are not compiled: {fault}")
        else:
            compile_fused(policy.lm)


def _check_heads(calls: Iterable[AttentionCall], processes: int) -> None:
    heads = sorted({call.heads for call in calls})
    if not heads:
        what = f"{processes} processes can share a row of prompt and responses, but this model's are rows of their own"
        raise ConfigError(what, KEY, "leave it out")
    if any(number % processes for number in heads):
        what = f"{processes} processes cannot share {' and '.join(map(str, heads))} heads of attention"
        raise ConfigError(what, KEY, f"choose a divisor of {math.gcd(*heads)}")


def attention_fault(
    back_end: Backend, calls: Iterable[AttentionCall], device: torch.device, dtype: torch.dtype
) -> str | None:
    """What is wrong with a back end for the layers that ask for ``calls``, None for nothing.

    Compared are values and gradients of a row of two sets and of responses after a prompt that is kept, over several
    blocks of tokens.
    """
    several = collate([_tokens("0", 150, [140, 1, 37]), _tokens("1", 3, [20])]).to(device)
    after = collate([_tokens("0", 150, [140, 1, 37])]).after_prompt().to(device)
    for call in sorted(calls, key=str):
        for batch in (several, after):
            expected = _outputs(DenseAttend(batch), call, batch, torch.float32, dtype)
            try:
                found = _outputs(back_end(batch), call, batch, dtype, dtype)
            except Exception as error:  # of the compiler, the driver, another version of either
                return f"attention with {_words(call)} failed: {cut(first_line(error), 120)}"
            for one, other in zip(expected, found, strict=True):
                if not float((one - other.float()).abs().max()) <= TOLERANCE[dtype] * float(one.abs().max()):
                    return f"attention with {_words(call)} is not what the dense mask gives"
    return None


def _tokens(name: str, prompt: int, responses: list[int]) -> _Tokens:
    return _Tokens(name, np.ones(prompt, np.int32), [np.ones(length, np.int32) for length in responses])


def _outputs(
    attend: Attend, call: AttentionCall, batch: TokenBatch, dtype: torch.dtype, digits: torch.dtype
) -> list[Tensor]:
    """Values and gradients in ``dtype`` for random tensors that fit into ``digits``, the same at every call."""
    draw = torch.Generator().manual_seed(0)  # the run's own random numbers stay as they are
    tokens, forwarded = batch.tokens, batch.tokens - batch.skipped

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(digits).to(batch.input_ids_N.device, dtype)

    leaves = [
        random(forwarded, call.heads, call.width),
        random(tokens, call.key_heads, call.width),
        random(tokens, call.key_heads, call.value_width),
    ]
    leaves += [random(call.heads)] if call.has_sinks else []
    weights_NHD = random(forwarded, call.heads, call.value_width)
    for leaf in leaves:
        leaf.requires_grad_()
    with torch.enable_grad():
        sinks_H = leaves[3] if call.has_sinks else None
        out_NHD = attend(leaves[0], leaves[1], leaves[2], call.scale, call.window, call.softcap, sinks_H)
        return [out_NHD.detach(), *torch.autograd.grad((out_NHD * weights_NHD).sum(), leaves)]


def _words(call: AttentionCall) -> str:
    words = [f"{call.heads} heads of {call.width} on {call.key_heads}"]
    words += [] if call.window is None else [f"a window of {call.window}"]
    words += [] if call.softcap is None else [f"a cap of {call.softcap:g}"]
    words += ["sinks"] if call.has_sinks else []
    return ", ".join(words)
