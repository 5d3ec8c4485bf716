"""A set in pieces, its prompt forwarded with the first alone, has the log-probs and gradients of the set at once."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor

from mpo.config.training import LoraConfig
from mpo.layout.batch import collate
from mpo.layout.packing import Piece
from mpo.policy import attention
from mpo.policy.attention import KeptPrompt
from mpo.policy.load import make_policy
from mpo.policy.module import PolicyModule
from mpo.policy.pieces import joined, laid_out
from tests.families import FAMILIES, PIECES, Tokens, in_pieces, large_set, logps_and_gradients, model


def assert_same_in_pieces(policy: PolicyModule, tokens: Tokens, pieces: list[Piece] = PIECES) -> None:
    kept = sorted(k for _, part in pieces for k in part)
    expected_1KT, expected = logps_and_gradients(policy, collate([tokens], [kept]))
    actual_1KT, actual = in_pieces(policy, tokens, pieces)
    torch.testing.assert_close(actual_1KT, expected_1KT, rtol=1e-5, atol=1e-5)
    assert actual.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("back_end", [attention.CpuAttend, attention.DenseAttend])
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
    policy = PolicyModule(lm, attention.FlexAttend)
    with torch.no_grad():
        expected_1KT = policy(collate([large_set()])).token_logps_BKT
        forwards = laid_out([large_set()], PIECES, policy.shares_prefix)
        actual = reduce(joined, [policy(one.batch, one.prompt) for one in forwards])
    torch.testing.assert_close(actual.token_logps_BKT, expected_1KT, rtol=1e-5, atol=1e-5)


def test_rows_of_their_own_have_their_prompt_in_every_piece() -> None:
    policy = PolicyModule(model("llama"))
    forwards = laid_out([large_set()], PIECES, policy.shares_prefix)
    assert [(one.batch.skipped, one.prompt) for one in forwards] == [(0, None)] * 3
    assert_same_in_pieces(policy, large_set())


@pytest.mark.parametrize("pieces", [[(0, [1])], [(0, [1]), (0, [3])], [(0, [3, 5]), (0, [1])]])
def test_single_and_dropped_responses(pieces: list[Piece]) -> None:
    lm = model("llama")
    lm.set_attn_implementation(attention.NAME)
    assert_same_in_pieces(PolicyModule(lm), large_set(), pieces)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_bfloat16_stays_as_near_to_float32_as_the_set_at_once(family: str) -> None:
    lm = model(family)
    lm.set_attn_implementation(attention.NAME)
    exact_1KT, exact = logps_and_gradients(PolicyModule(lm), collate([large_set()]))
    policy = PolicyModule(lm.bfloat16())
    once_1KT, once = logps_and_gradients(policy, collate([large_set()]))
    apart_1KT, apart = in_pieces(policy, large_set(), PIECES)

    def error(actual: Tensor, expected: Tensor) -> float:
        return float((actual.float() - expected).norm() / expected.norm())

    assert error(apart_1KT, exact_1KT) < 1.5 * error(once_1KT, exact_1KT) + 1e-4
    for name, gradient in exact.items():
        assert error(apart[name], gradient) < 1.5 * error(once[name], gradient) + 1e-3, name


def test_a_prompt_of_another_set_is_refused() -> None:
    lm = model("llama")
    lm.set_attn_implementation(attention.NAME)
    policy, after = PolicyModule(lm), collate([large_set()]).after_prompt()
    with pytest.raises(ValueError, match="no other piece's is given"):
        policy(after)
    with pytest.raises(ValueError, match="a prompt of 8 tokens is kept, the batch goes on after 9"):
        policy(after, prompt=KeptPrompt(8))


def test_a_prompt_in_bfloat16_gets_its_gradient_summed_in_float32() -> None:
    """A thousand pieces add 1/256 each to a first gradient of 1, in which bfloat16 would lose them."""
    batch, prompt = collate([large_set()]), KeptPrompt(9)
    row_N = torch.ones(batch.tokens, dtype=torch.bfloat16)
    with torch.no_grad():
        prompt.across(batch)("keys", row_N)
    own_n = row_N[:3].clone().requires_grad_()
    for weight in (1.0, *[1 / 256] * 1000):
        whole_N = prompt.across(batch.after_prompt())("keys", own_n)
        assert whole_N.dtype == torch.bfloat16 and len(whole_N) == 9 + 3
        (whole_N * weight).sum().backward()
    leaf_N = row_N.clone().requires_grad_()
    prompt.across(batch)("keys", leaf_N).sum().backward()
    assert leaf_N.grad is not None
    expected = torch.tensor(1 + 1 + 1000 / 256).bfloat16()
    assert leaf_N.grad[:9].eq(expected).all() and leaf_N.grad[9:].eq(1).all()


def test_attention_is_computed_once_where_its_outputs_are_kept() -> None:
    """Of the pieces with 9 + 19, 14 and 19 tokens; to the last bit what computing it again gives."""
    known: list[bool] = []

    class Watched(attention.CpuAttend):
        def __call__(self, *arguments: Any) -> Tensor:
            known.append(arguments[-1] is not None)
            return super().__call__(*arguments)

    lm = model("llama")
    lm.set_attn_implementation(attention.NAME)
    policy = PolicyModule(lm, Watched)
    again_1KT, again = in_pieces(policy, large_set(), PIECES, keep=0)
    assert not any(known) and len(known) == 2 * 3 * 2
    for keep, pieces in ((28, 1), (41, 1), (42, 2), (1000, 3)):
        known.clear()
        kept_1KT, kept = in_pieces(policy, large_set(), PIECES, keep)
        assert sum(known) == 2 * pieces and len(known) == 2 * 3 * 2
        assert torch.equal(kept_1KT, again_1KT)
        assert all(torch.equal(kept[name], gradient) for name, gradient in again.items())
