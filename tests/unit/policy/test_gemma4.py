"""Gemma 4's text model in one row and in pieces: heads of two widths, embeddings per layer, layers that read the keys
and values of others, experts. In float64, as its norms of small numbers make roundings large."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from mpo.layout.batch import collate
from mpo.policy import attention
from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import share_prefix
from tests.families import GEMMA4, PIECES, SMALL, VOCABULARY, in_pieces, large_set, logps_and_gradients

VARIANTS: dict[str, dict[str, Any]] = {
    "31B": {"num_global_key_value_heads": 1, "attention_k_eq_v": True},
    "26B-A4B": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
    "E4B": {"hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": VOCABULARY, "num_kv_shared_layers": 2},
    "E2B": {
        "hidden_size_per_layer_input": 6,
        "vocab_size_per_layer_input": VOCABULARY,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
    },
}


def policy_of(variant: str, dtype: torch.dtype) -> PolicyModule:
    torch.manual_seed(0)
    config = AutoConfig.for_model("gemma4_text", **(SMALL | GEMMA4 | VARIANTS[variant]))
    lm = AutoModelForCausalLM.from_config(config, experts_implementation="eager")  # the other knows no float64
    return PolicyModule(lm.eval().to(dtype), attention.DenseAttend)


def assert_same(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == expected[1].keys() and expected[1]
    for name, gradient in expected[1].items():
        tolerance = 2e-6 * float(gradient.abs().max())  # norms compute in float32
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logps_and_gradients(variant: str) -> None:
    policy = policy_of(variant, torch.float64)
    in_rows = logps_and_gradients(policy)
    policy.base.set_attn_implementation(attention.NAME)
    assert policy.shares_prefix
    assert_same(logps_and_gradients(policy), in_rows)
    kept = sorted(k for _, part in PIECES for k in part)
    assert_same(in_pieces(policy, large_set(), PIECES), logps_and_gradients(policy, collate([large_set()], [kept])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_prompts_are_shared(variant: str, dtype: torch.dtype) -> None:
    lm = policy_of(variant, dtype).base
    assert share_prefix(lm) and PolicyModule(lm).shares_prefix
