"""The CPU back end against the dense mask: outputs and gradients in float64, over sizes that make several groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from mpo.layout.batch import TokenBatch, collate
from mpo.layout.shape_buckets import QUERIES, stepped, stepped_row
from mpo.policy.attention import Attend, CpuAttend, DenseAttend, FlexAttend
from mpo.policy.cpu import blocks, groups
from mpo.policy.cpu.groups import group
from mpo.policy.visibility import Visibility

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


def random_tensors(tokens: TokenBatch, key_heads: int, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Query, key and value with wide logits, so that either part of the keys may outweigh the other; weights."""
    draw = torch.Generator().manual_seed(seed)
    tensors = [
        8 * torch.randn(tokens.tokens, heads, WIDTH, generator=draw, dtype=torch.float64)
        for heads in (HEADS, key_heads, key_heads)
    ]
    return tensors, torch.randn(tokens.tokens, HEADS, WIDTH, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 1, 7, 60])
def test_blocks_are_dense(seed: int, key_heads: int, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "WORTH_A_GROUP", 50)
    tokens = batch(seed)
    tensors, weights_NHD = random_tensors(tokens, key_heads, seed)
    actual = run(CpuAttend(tokens), tensors, weights_NHD, window)
    expected = run(DenseAttend(tokens), tensors, weights_NHD, window)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lengths", [[6], [6, 150, 3], [40] * 12])
@pytest.mark.parametrize("window", [None, 7, 60])
@pytest.mark.parametrize("prompt", [1, 90, 400])
def test_blocks_after_a_prompt_that_is_skipped_are_dense(lengths: list[int], window: int | None, prompt: int) -> None:
    responses = [np.ones(length, dtype=np.int32) for length in lengths]
    tokens = collate([Tokens("0", np.ones(prompt, dtype=np.int32), responses)])
    tensors, weights_NHD = random_tensors(tokens, 2)
    whole = run(DenseAttend(tokens), tensors, weights_NHD.index_fill(0, torch.arange(prompt), 0.0), window)
    expected = [whole[0][prompt:], whole[1][prompt:], *whole[2:]]  # of responses, but all of keys and values
    after, apart = tokens.after_prompt(), [tensors[0][prompt:], *tensors[1:]]
    for back_end in (CpuAttend, DenseAttend):
        actual = run(back_end(after), apart, weights_NHD[prompt:], window)
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def long_prompts() -> TokenBatch:
    """Short answers to long prompts, which are taken several at a time, and one longer than a tile."""
    draw = np.random.default_rng(0)

    def ids(tokens: int) -> np.ndarray:
        return np.ones(tokens, dtype=np.int32)

    answers = [ids(int(length)) for length in draw.integers(1, 40, 9)]
    return collate([Tokens("0", ids(200), answers), Tokens("1", ids(3), [ids(600), ids(20)])])


@pytest.mark.parametrize("key_heads", [4, 1])
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("at_once", [1 << 20, 1 << 14])
def test_runs_of_responses_and_tiles_are_dense(
    key_heads: int, window: int | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "SCORES_AT_ONCE", at_once)
    tokens = long_prompts()
    tensors, weights_NHD = random_tensors(tokens, key_heads)
    attend = CpuAttend(tokens)
    actual = run(attend, tensors, weights_NHD, window)
    for one, other in zip(actual, run(DenseAttend(tokens), tensors, weights_NHD, window), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    made = attend.plan.blocks(tensors[0].transpose(0, 1), tensors[1].transpose(0, 1), window)
    assert sum(block.queries.members for block in made) < len(tokens.response_lengths_R) + 2
    assert any(len(block.tiles) > 1 for block in made)


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 60])
def test_bfloat16_is_dense_to_its_digits(key_heads: int, window: int | None) -> None:
    for tokens in (batch(0).filled(1024), long_prompts()):
        tensors, weights_NHD = random_tensors(tokens, key_heads)
        narrow = [tensor.bfloat16() for tensor in tensors]
        actual = run(CpuAttend(tokens), narrow, weights_NHD.bfloat16(), window)
        expected = run(DenseAttend(tokens), [t.double() for t in narrow], weights_NHD.bfloat16().double(), window)
        for one, other in zip(actual, expected, strict=True):
            assert one.dtype == torch.bfloat16
            assert float((one.double() - other).abs().max()) < 1.5e-2 * float(other.abs().max())


def test_sizes_of_bfloat16_products_are_few() -> None:
    def sizes(dtype: torch.dtype) -> set[tuple[int, ...]]:
        found = set()
        for seed in range(100):
            tokens = batch(seed)
            query_HND = torch.zeros(HEADS, tokens.tokens, WIDTH, dtype=dtype)
            for block in CpuAttend(tokens).plan.blocks(query_HND, query_HND, None):
                found.add((block.queries.members, block.queries.length, block.keys.length))
        return found

    assert 2 * len(sizes(torch.bfloat16)) < len(sizes(torch.float32))
    like = torch.zeros(1, dtype=torch.bfloat16)
    assert [stepped(size, like, QUERIES) for size in (1, 17, 64, 65, 280)] == [16, 32, 64, 128, 320]
    assert [stepped(size, torch.zeros(1), QUERIES) for size in (1, 17, 999)] == [1, 17, 999]
    rows = [stepped_row(size, like) for size in range(1, 16385)]
    assert all(size <= row <= max(size + 63, 1.04 * size) for size, row in enumerate(rows, 1))
    assert len(set(rows)) <= 4 + 31 + 3 * 32


def test_groups_hold_every_member_once_and_little_padding() -> None:
    draw = np.random.default_rng(0)
    queries, keys = draw.integers(1, 2000, 400), draw.integers(1, 500, 400)
    parts = group(queries, keys)
    assert sorted(np.concatenate(parts)) == list(range(400))
    padded = sum(len(m) * queries[m].max() * keys[m].max() for m in parts)
    assert padded < 2.5 * (queries * keys).sum()
    alike = group(np.full(50, 20), np.full(50, 30))
    assert len(alike) == 1


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [None, 7])
def test_capped_scores_and_sinks(softcap: float | None, sinks: bool, window: int | None) -> None:
    """The dense mask against the formula written out, token by token; the other back ends against it."""
    tokens = collate([Tokens("0", np.ones(9, dtype=np.int32), [np.ones(n, dtype=np.int32) for n in (4, 1, 12)])])
    (query_NHD, key_NGD, value_NGD), _ = random_tensors(tokens, 2)
    sinks_H = torch.randn(HEADS, dtype=torch.float64) if sinks else None
    seen = Visibility.of(tokens)
    expected_NHD = torch.zeros_like(query_NHD)
    for n in range(tokens.tokens):
        for h in range(HEADS):
            at = [m for m in range(tokens.tokens) if bool(seen.sees(torch.tensor(n), torch.tensor(m), window))]
            scores_M = key_NGD[at, h // 2] @ query_NHD[n, h] * 0.3
            scores_M = scores_M if softcap is None else softcap * torch.tanh(scores_M / softcap)
            more = [] if sinks_H is None else [sinks_H[h : h + 1]]
            weights_M = torch.cat([scores_M, *more]).softmax(-1)[: len(at)]
            expected_NHD[n, h] = weights_M @ value_NGD[at, h // 2]
    for back_end in (DenseAttend, CpuAttend, FlexAttend):
        with torch.no_grad():
            found_NHD = back_end(tokens)(query_NHD, key_NGD, value_NGD, 0.3, window, softcap, sinks_H)
        tolerance = 1e-5 if back_end is FlexAttend and sinks else 1e-9  # whose normalisers are float32
        torch.testing.assert_close(found_NHD, expected_NHD, rtol=tolerance, atol=tolerance)
