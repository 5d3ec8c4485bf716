"""The CPU back end against the dense mask: outputs and gradients in float64, over sizes that make several groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from mpo.logprobs.attention import Attend, BlockAttend, DenseAttend, groups
from mpo.logprobs.attention.groups import group
from mpo.logprobs.batch import TokenBatch, collate

HEADS, WIDTH = 4, 8


@dataclass(frozen=True)
class Tokens:
    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]


def batch(seed: int) -> TokenBatch:
    draw = np.random.default_rng(seed)

    def ids(longest: int) -> np.ndarray:
        return np.ones(draw.integers(1, longest), dtype=np.int32)

    return collate(
        [Tokens(str(i), ids(90), [ids(int(draw.choice([6, 150]))) for _ in range(k)]) for i, k in enumerate((9, 1, 5))]
    )


def run(attend: Attend, tensors: list[Tensor], weights_NHD: Tensor, window: int | None) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out_NHD = attend(leaves[0], leaves[1], leaves[2], 0.3, window)
    return [out_NHD.detach(), *torch.autograd.grad((out_NHD * weights_NHD).sum(), leaves)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 1, 7, 60])
def test_blocks_are_dense(seed: int, key_heads: int, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "WORTH_A_GROUP", 50)
    tokens = batch(seed)
    draw = torch.Generator().manual_seed(seed)
    # Wide logits, so that either part of the softmax may outweigh the other.
    tensors = [
        8 * torch.randn(tokens.tokens, heads, WIDTH, generator=draw, dtype=torch.float64)
        for heads in (HEADS, key_heads, key_heads)
    ]
    weights_NHD = torch.randn(tokens.tokens, HEADS, WIDTH, generator=draw, dtype=torch.float64)
    blocks = BlockAttend(tokens)
    actual = run(blocks, tensors, weights_NHD, window)
    expected = run(DenseAttend(tokens), tensors, weights_NHD, window)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_groups_hold_every_member_once_and_little_padding() -> None:
    draw = np.random.default_rng(0)
    queries, keys = draw.integers(1, 2000, 400), draw.integers(1, 500, 400)
    parts = group(queries, keys)
    assert sorted(np.concatenate(parts)) == list(range(400))
    padded = sum(len(m) * queries[m].max() * keys[m].max() for m in parts)
    assert padded < 2.5 * (queries * keys).sum()
    alike = group(np.full(50, 20), np.full(50, 30))
    assert len(alike) == 1
