"""Every causal language model of transformers, tiny and random: its own log-probs, or refused in one line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mpo.errors import UserError
from mpo.policy.load import load_policy
from tests.families import plain_logps, ragged_batch

LARGEST = 5_000_000
SIZES = {
    **{"vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 8},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512, "sliding_window": 6},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "attention_chunk_size": 8},
    **{"num_experts": 4, "num_experts_per_tok": 2, "num_local_experts": 4, "moe_intermediate_size": 16},
    **{"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    **{"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512, "d_model": 32, "n_heads": 4, "n_layers": 4},
    **{"ffn_dim": 64, "word_embed_proj_dim": 32, "shared_expert_intermediate_size": 16},
    **{"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8},
    **{"mamba_chunk_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "chunk_size": 8},
}
"""Of these a family takes what it has a name for."""


def tiny(family: str) -> PreTrainedModel | None:
    """A random model of the family; None if it needs other sizes, or is a composite one."""
    torch.manual_seed(0)
    try:
        known = AutoConfig.for_model(family).to_dict()
        config = AutoConfig.for_model(family, **{name: value for name, value in SIZES.items() if name in known})
        if config.get_text_config() is not config:
            return None
        with torch.device("meta"):
            if AutoModelForCausalLM.from_config(config).num_parameters() > LARGEST:
                return None
        lm: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    except Exception:  # transformers' own: sizes that this family takes otherwise
        return None
    for parameter in lm.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
        else:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return lm


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
def test_a_family_is_itself_or_refused(family: str, tmp_path: Path) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    lm = tiny(family)
    if lm is None:
        pytest.skip("no tiny model of these sizes")
    lm.save_pretrained(tmp_path)
    try:
        policy = load_policy(str(tmp_path))
    except UserError as refused:
        assert len(str(refused)) < 400 and "\n" not in str(refused)
        assert family in str(refused) or lm.config.model_type in str(refused) or type(lm).__name__ in str(refused)
        return
    # As transformers itself reads it: a family whose embeddings are tied may have been two tensors in memory.
    lm = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    policy.train()
    batch = ragged_batch()
    with torch.no_grad():
        found_BKT = policy(batch).token_logps_BKT
    torch.testing.assert_close(found_BKT, plain_logps(lm, batch), rtol=1e-3, atol=1e-3)
