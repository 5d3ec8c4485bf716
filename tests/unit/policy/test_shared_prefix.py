"""Which families share prompts follows from their architecture: not from weights, precision or luck."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import share_prefix
from tests.families import SMALL
from tests.unit.policy.test_every_family import SIZES

EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 8, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {"head_dim": 8, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}

MIXTURES: dict[str, bool] = {
    **dict.fromkeys(
        ["afmoe", "aria_text", "axk1", "cohere2_moe", "deepseek_v2", "deepseek_v3", "dots1", "ernie4_5_moe",
         "exaone_moe", "flex_olmo", "gemma4_text", "glm4_moe", "glm4_moe_lite", "gpt_oss", "granitemoe",
         "granitemoe_swa", "granitemoeshared", "hunyuan_v1_moe", "hy_v3", "jetmoe", "laguna", "mellum", "minimax_m2",
         "minimax_m3_vl_text", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "solar_open"], True
    ),
    **dict.fromkeys(
        ["axk2", "deepseek_v32", "deepseek_v4", "doge", "glm_moe_dsa", "granitemoehybrid", "hy_v4", "inkling_text",
         "jamba", "llama4_text", "mimo_v2_flash", "minimax", "nemotron_h", "phimoe",
         "qwen3_5_moe_text", "qwen3_next"], False
    ),
}  # fmt: skip
"""Mixtures of experts among transformers' families, those that can be made tiny, and whether they share prompts: others
look only at chosen tokens, mix tokens in states or convolutions, or have a window that their mask alone knows."""
MANY_EXPERTS = {
    **{"num_experts": 8, "num_local_experts": 8, "n_routed_experts": 8, "moe_num_experts": 8, "top_k_experts": 2},
    **{"enable_moe_block": True, "hidden_size_per_layer_input": 0, "global_head_dim": 8},
}


def experts(family: str, seed: int, std: float, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(seed)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL, **EXPERTS[family])).eval()
    for parameter in lm.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=std)
    return lm.to(dtype)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", EXPERTS)
def test_experts_share_prompts_whatever_the_weights(family: str, dtype: torch.dtype) -> None:
    """With some of these, roundings send tokens to other experts in the one layout than in the other."""
    assert all(share_prefix(experts(family, seed, std, dtype)) for seed in range(3) for std in (0.02, 0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("leak", ["of values", "of room"])
def test_experts_that_look_at_other_tokens_keep_their_rows(leak: str, dtype: torch.dtype) -> None:
    """Some of all tokens' mean; or room for some tokens only, which no gradient shows."""
    std = 0.1 if dtype == torch.float32 else 0.5  # what is less than bfloat16's roundings is not there

    def of_values(module: object, arguments: object, output: Tensor) -> Tensor:
        return output + 1e-2 * std * output.mean((0, 1), keepdim=True)

    def of_room(module: object, arguments: object, output: Tensor) -> Tensor:
        flat = output.flatten(0, -2)
        first = torch.arange(len(flat)) < 6
        return (flat * first[:, None]).view_as(output)

    lm = experts("qwen3_moe", 0, std, dtype)
    for layer in lm.model.layers:
        layer.mlp.register_forward_hook(of_values if leak == "of values" else of_room)
    assert not share_prefix(lm)
    assert not PolicyModule(lm).shares_prefix


@pytest.mark.slow
@pytest.mark.parametrize("family", MIXTURES)
def test_whether_a_mixture_of_experts_shares_prompts_is_no_matter_of_luck(family: str) -> None:
    known = AutoConfig.for_model(family).to_dict()
    sizes = {
        name: value for name, value in (SIZES | MANY_EXPERTS).items() if name in known or name == "global_head_dim"
    }
    for seed, std, dtype in itertools.product(range(5), (0.02, 0.3), (torch.float32, torch.bfloat16)):
        torch.manual_seed(seed)
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=std)
        assert bool(share_prefix(lm.to(dtype))) == MIXTURES[family], (seed, std, dtype)
