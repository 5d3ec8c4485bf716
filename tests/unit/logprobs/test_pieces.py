"""A set in pieces, its prompt forwarded with the first alone, has the log-probs and gradients of the set at once."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch
from torch import Tensor

from mpo.config.schema import LoraConfig
from mpo.logprobs import attention
from mpo.logprobs.attention import KeptPrompt
from mpo.logprobs.batch import collate
from mpo.logprobs.load import make_policy
from mpo.logprobs.packing import Piece
from mpo.logprobs.pieces import joined, piece_batches
from mpo.logprobs.policy import PolicyModule, ResponseLogps
from tests.families import FAMILIES, VOCABULARY, Tokens, logps_and_gradients, model

LENGTHS = (12, 1, 7, 7, 3, 14, 2, 5)
PIECES: list[Piece] = [(0, [0, 2]), (0, [5]), (0, [1, 3, 4, 6, 7])]


def large_set(prompt: int = 9) -> Tokens:
    draw = np.random.default_rng(3)
    prompt_ids, *responses = (draw.integers(0, VOCABULARY, n).astype(np.int32) for n in (prompt, *LENGTHS))
    return Tokens("0", prompt_ids, responses)


def in_pieces(policy: PolicyModule, tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
    """As :func:`tests.families.logps_and_gradients` has them: forwards by piece, then backwards, the first last."""
    batches, prompt = piece_batches([tokens], PIECES, policy.shares_prefix), KeptPrompt()
    with torch.no_grad():
        seen = [policy(batch, prompt=prompt) for batch in batches]
    logps_1KT = reduce(joined, seen).token_logps_BKT
    weights_1KT = torch.randn(logps_1KT.shape, generator=torch.Generator().manual_seed(1))
    policy.zero_grad()
    for batch, known in reversed(list(zip(batches, seen, strict=True))):
        again: ResponseLogps = policy(batch, known.normalisers_WM, prompt)
        values_1KT = again.token_logps_BKT
        (values_1KT * weights_1KT[..., : values_1KT.shape[-1]]).sum().backward()
    return logps_1KT, {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def assert_same_in_pieces(policy: PolicyModule, tokens: Tokens) -> None:
    assert policy.shares_prefix
    expected_1KT, expected = logps_and_gradients(policy, collate([tokens]))
    actual_1KT, actual = in_pieces(policy, tokens)
    torch.testing.assert_close(actual_1KT, expected_1KT, rtol=1e-5, atol=1e-5)
    assert actual.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("back_end", [attention.BlockAttend, attention.DenseAttend])
@pytest.mark.parametrize("family", FAMILIES)
def test_logps_and_gradients_of_a_family(family: str, back_end: attention.Backend) -> None:
    lm = model(family)
    lm.set_attn_implementation(attention.NAME)
    assert_same_in_pieces(PolicyModule(lm, back_end), large_set())


@pytest.mark.parametrize("prompt", [1, 40])
def test_with_prompts_of_any_length(prompt: int) -> None:
    lm = model("mistral")  # its window is shorter than the prompt of 40
    lm.set_attn_implementation(attention.NAME)
    assert_same_in_pieces(PolicyModule(lm), large_set(prompt))


@pytest.mark.parametrize("checkpointing, lora", [(True, None), (False, LoraConfig(rank=4)), (True, LoraConfig(rank=4))])
def test_with_activation_checkpointing_and_adapters(checkpointing: bool, lora: LoraConfig | None) -> None:
    lm = model("llama")
    lm.enable_input_require_grads()
    lm.set_attn_implementation(attention.NAME)
    assert_same_in_pieces(make_policy(lm.train(), checkpointing, lora).train(), large_set())


@pytest.mark.parametrize("family", FAMILIES)
def test_logps_of_flex_attention(family: str) -> None:
    """Forward only: on a CPU FlexAttention has no backward."""
    lm = model(family)
    lm.set_attn_implementation(attention.NAME)
    policy, prompt = PolicyModule(lm, attention.FlexAttend), KeptPrompt()
    with torch.no_grad():
        expected_1KT = policy(collate([large_set()])).token_logps_BKT
        batches = piece_batches([large_set()], PIECES, policy.shares_prefix)
        actual = reduce(joined, [policy(batch, prompt=prompt) for batch in batches])
    torch.testing.assert_close(actual.token_logps_BKT, expected_1KT, rtol=1e-5, atol=1e-5)


def test_rows_of_their_own_have_their_prompt_in_every_piece() -> None:
    policy = PolicyModule(model("llama"))
    assert [batch.known for batch in piece_batches([large_set()], PIECES, policy.shares_prefix)] == [0, 0, 0]
    expected_1KT, _ = logps_and_gradients(policy, collate([large_set()]))
    torch.testing.assert_close(in_pieces(policy, large_set())[0], expected_1KT, rtol=1e-5, atol=1e-5)


def test_a_prompt_in_bfloat16_gets_its_gradient_summed_in_float32() -> None:
    """A thousand pieces add 1/256 each to a first gradient of 1, in which bfloat16 would lose them."""
    batch, prompt = collate([large_set()]), KeptPrompt()
    row_N = torch.ones(batch.tokens, dtype=torch.bfloat16)
    with torch.no_grad():
        prompt.part(batch)("keys", row_N)
    for weight in (1.0, *[1 / 256] * 1000):
        whole_N = prompt.part(batch.after_prompt())("keys", row_N[:3])
        assert whole_N.dtype == torch.bfloat16 and len(whole_N) == 9 + 3
        (whole_N * weight).sum().backward()
    leaf_N = row_N.clone().requires_grad_()
    prompt.part(batch)("keys", leaf_N).sum().backward()
    assert leaf_N.grad is not None
    expected = torch.tensor(1 + 1 + 1000 / 256).bfloat16()
    assert leaf_N.grad[:9].eq(expected).all() and leaf_N.grad[9:].eq(1).all()
