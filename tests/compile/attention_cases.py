"""FlexAttention over a packed row on a card in name only: what is compiled for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from mpo.layout.batch import TokenBatch, collate
from mpo.policy.attention import FlexAttend, flex
from tests.compile.fake_card import Kernel, compiled_kernels
from tests.compile.fake_tensors import DEVICE, fake_tensors
from tests.families import Tokens

Lengths = Sequence[tuple[int, Sequence[int]]]
"""Of response sets: tokens of the prompt, and of each response."""


@dataclass(frozen=True)
class Case:
    """One call of attention, and its gradient.

    Attributes:
        width: of a head.
        heads: of queries.
        key_heads: of keys and values.
        window: positions that a token sees.
        after_prompt: the prompt is not forwarded, its keys and values are there.
        gradient: whether it goes backwards.
        softcap, sinks: what is done to scores, see :class:`mpo.policy.attention.backends.Attend`.
    """

    width: int
    heads: int = 8
    key_heads: int = 2
    window: int | None = None
    after_prompt: bool = False
    gradient: bool = True
    softcap: float | None = None
    sinks: bool = False
    dtype: torch.dtype = torch.bfloat16
    lengths: Lengths = ((180, (280,) * 4),)

    def __str__(self) -> str:
        parts = [f"{self.width} wide", f"{self.heads} of {self.key_heads}"]
        parts += [f"window {self.window}"] if self.window is not None else []
        parts += ["after its prompt"] if self.after_prompt else []
        parts += [f"capped at {self.softcap:g}"] if self.softcap is not None else []
        parts += ["with sinks"] if self.sinks else []
        parts += [] if self.gradient else ["without gradient"]
        parts += [] if self.lengths == Case.lengths else ["short"]
        return ", ".join([*parts, *([] if self.dtype == torch.bfloat16 else [str(self.dtype)])])


@dataclass(frozen=True)
class Compiled:
    """What a call made torch compile: graphs, kernels, and the seconds that it took in all."""

    graphs: int
    kernels: list[Kernel]
    seconds: float


def token_sets(lengths: Lengths) -> list[Tokens]:
    """Sets of such lengths, all of one token."""

    def ids(tokens: int) -> np.ndarray:
        return np.ones(tokens, dtype=np.int32)

    return [Tokens(str(i), ids(p), [ids(r) for r in responses]) for i, (p, responses) in enumerate(lengths)]


def laid_out(lengths: Lengths) -> TokenBatch:
    """Their row, on a CPU."""
    return collate(token_sets(lengths))


def attend(case: Case) -> Compiled:
    """Compile what the case needs that was not compiled before."""
    began, before = time.perf_counter(), counters["stats"]["unique_graphs"]
    compiled_kernels()
    batch = laid_out(case.lengths)
    with fake_tensors():
        there = (batch.after_prompt() if case.after_prompt else batch).to(DEVICE)

        def projected(tokens: int, heads: int) -> Tensor:
            """As a layer makes it: tokens outermost, then heads."""
            found = torch.empty(tokens, heads, case.width, device=DEVICE, dtype=case.dtype)
            return found.requires_grad_(case.gradient)

        query_NHD = projected(there.tokens - there.skipped, case.heads)
        key_NGD, value_NGD = projected(there.tokens, case.key_heads), projected(there.tokens, case.key_heads)
        sinks_H = torch.empty(case.heads, device=DEVICE, dtype=case.dtype, requires_grad=case.gradient)
        more = (case.softcap, sinks_H if case.sinks else None)
        out_NHD = FlexAttend(there)(query_NHD, key_NGD, value_NGD, case.width**-0.5, case.window, *more)
        assert out_NHD.shape == query_NHD.shape and out_NHD.dtype == case.dtype
        if case.gradient:
            out_NHD.sum().backward()
            for leaf in (query_NHD, key_NGD, value_NGD, *([sinks_H] if case.sinks else [])):
                assert leaf.grad is not None and leaf.grad.shape == leaf.shape
    graphs = counters["stats"]["unique_graphs"] - before
    return Compiled(graphs, compiled_kernels(), time.perf_counter() - began)


def attend_as_torch_does(case: Case) -> Compiled:
    """:func:`attend` with blocks of torch's own choice."""
    with patch.dict(flex.WIDE_BACKWARDS, clear=True), patch.dict(flex.WIDEST_FORWARDS, clear=True):
        return attend(case)
