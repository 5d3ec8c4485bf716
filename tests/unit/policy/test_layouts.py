"""One row with shared prompts gives the log-probs and gradients of a row for each response."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mpo.config.training import LoraConfig
from mpo.errors import ConfigError
from mpo.policy import attention
from mpo.policy.load import check_positions, make_policy
from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import share_prefix
from tests.families import FAMILIES, SMALL, logps_and_gradients, model, ragged_batch

BACK_ENDS: dict[str, attention.Backend] = {
    "blocks": attention.CpuAttend,
    "dense": attention.DenseAttend,
}


def assert_same_in_both_layouts(policy: PolicyModule) -> None:
    assert not policy.shares_prefix
    logps_BKT, gradients = logps_and_gradients(policy)
    policy.base.set_attn_implementation(attention.NAME)
    assert policy.shares_prefix
    shared_BKT, shared_gradients = logps_and_gradients(policy)
    torch.testing.assert_close(shared_BKT, logps_BKT, rtol=1e-5, atol=1e-5)
    assert shared_gradients.keys() == gradients.keys() and gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logps_and_gradients_of_a_family(family: str, back_end: str) -> None:
    assert_same_in_both_layouts(PolicyModule(model(family), BACK_ENDS[back_end]))


@pytest.mark.parametrize("family", FAMILIES)
def test_logps_of_flex_attention(family: str) -> None:
    """Forward only: on a CPU FlexAttention has no backward (tests/gpu has it)."""
    policy = PolicyModule(model(family), attention.FlexAttend)
    with torch.no_grad():
        logps_BKT = policy(ragged_batch()).token_logps_BKT
        policy.base.set_attn_implementation(attention.NAME)
        shared_BKT = policy(ragged_batch()).token_logps_BKT
    torch.testing.assert_close(shared_BKT, logps_BKT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("checkpointing, lora", [(True, None), (False, LoraConfig(rank=4)), (True, LoraConfig(rank=4))])
def test_with_activation_checkpointing_and_adapters(checkpointing: bool, lora: LoraConfig | None) -> None:
    lm = model("llama")
    lm.enable_input_require_grads()  # adapters on a frozen model: checkpointed layers need an input with gradient
    assert_same_in_both_layouts(make_policy(lm.train(), checkpointing, lora).train())


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("more", [1, 40])
def test_a_row_that_is_filled_up_says_the_same(back_end: str, more: int) -> None:
    lm = model("llama")
    lm.set_attn_implementation(attention.NAME)
    policy, batch = PolicyModule(lm, BACK_ENDS[back_end]), ragged_batch()
    logps_BKT, gradients = logps_and_gradients(policy, batch)
    filled = batch.filled(batch.tokens + more)
    assert filled.tokens == batch.tokens + more and batch.filled(batch.tokens) is batch
    filled_BKT, filled_gradients = logps_and_gradients(policy, filled)
    torch.testing.assert_close(filled_BKT, logps_BKT, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(filled_gradients[name], gradient, rtol=1e-5, atol=2e-6, msg=name)


def test_a_prompt_is_forwarded_once() -> None:
    batch = ragged_batch()
    rows = int((batch.prompt_lengths_S[batch.prompt_of_R] + batch.response_lengths_R).sum())
    once = int(batch.prompt_lengths_S.sum() + batch.response_lengths_R.sum())
    assert batch.tokens == once < rows


def test_a_family_is_probed_before_it_shares() -> None:
    lm = model("qwen2")
    assert share_prefix(lm)
    assert PolicyModule(lm).shares_prefix


def test_a_window_that_only_the_mask_knows_keeps_its_rows() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "phimoe", **SMALL, num_key_value_heads=2, sliding_window=16, num_local_experts=2, num_experts_per_tok=1
    )
    lm = AutoModelForCausalLM.from_config(config).eval()
    assert not share_prefix(lm)


@pytest.mark.parametrize(("kind", "more"), [("dynamic", {"factor": 2.0}), ("default", {})])
def test_rotary_embeddings_that_follow_the_longest_sequence_are_refused(kind: str, more: dict[str, float]) -> None:
    config = AutoConfig.for_model("llama", **SMALL, rope_parameters={"rope_type": kind, "rope_theta": 1e4, **more})
    policy = PolicyModule(AutoModelForCausalLM.from_config(config))
    check_positions(policy, 64)
    if kind == "default":
        check_positions(policy, 65)
    else:
        with pytest.raises(ConfigError, match=r"data.max_tokens: .* beyond 64 positions"):
            check_positions(policy, 65)


def test_the_tied_head_takes_no_adapter() -> None:
    tied = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL, tie_word_embeddings=True))
    with pytest.raises(ConfigError, match="shares its weights with it; remove embed_tokens"):
        make_policy(tied, lora=LoraConfig(target_modules=["q_proj", "embed_tokens"]))
    with pytest.raises(ConfigError, match="the head takes no adapter; remove lm_head"):
        make_policy(model("llama"), lora=LoraConfig(target_modules=["lm_head"]))


def test_a_family_whose_layers_mix_tokens_otherwise_keeps_its_rows() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "falcon_h1", **{**SMALL, "num_key_value_heads": 2, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8,
                        "mamba_d_state": 8, "mamba_n_groups": 1}
    )  # fmt: skip
    lm = AutoModelForCausalLM.from_config(config).eval()
    assert not share_prefix(lm)
    assert not PolicyModule(lm).shares_prefix
