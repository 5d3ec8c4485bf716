"""Small models of many families, those that share prompts and others, and a batch to compare layouts with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)

from mpo.layout.batch import TokenBatch, collate
from mpo.layout.packing import Piece
from mpo.policy.model_class import attention_choice
from mpo.policy.module import PolicyModule, ResponseLogps
from mpo.policy.pieces import joined, laid_out

VOCABULARY = 99
SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 5},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 0.5},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
    "phi3": {"num_key_value_heads": 2, "sliding_window": 6},
    "gpt_neox": {},
    "olmo2": {"num_key_value_heads": 2},
    "olmo3": {"num_key_value_heads": 2, "sliding_window": 5},
    "smollm3": {"num_key_value_heads": 2, "num_hidden_layers": 4},
    "qwen3_moe": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
    "gpt_oss": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 5,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
}

GEMMA4: dict[str, Any] = {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": 4,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "hidden_size_per_layer_input": 0,
}
"""Gemma 4's text model; it has variants."""

_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_expand": 2,
           "mamba_chunk_size": 8}  # fmt: skip
_LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
UNSHARED: dict[str, dict[str, Any]] = {
    "phimoe": {"num_key_value_heads": 2, "sliding_window": 16, **_EXPERTS},
    "llama4_text": {
        "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1,
        "intermediate_size_mlp": 48, "attention_chunk_size": 8,
    },
    "qwen3_5_text": {
        "num_key_value_heads": 2, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"], **_LINEAR,
    },
    "granitemoehybrid": {
        "num_key_value_heads": 2, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 32, **_MAMBA2,
        **_EXPERTS,
    },
    "bamba": {"num_key_value_heads": 2, "attn_layer_indices": [1], **_MAMBA2},
    "falcon_h1": {"num_key_value_heads": 2, "head_dim": 8, "mamba_d_ssm": 64, "lm_head_multiplier": 0.25, **_MAMBA2},
    "nemotron_h": {
        "num_key_value_heads": 2, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 1, "ssm_state_size": 8,
        "expand": 2, "head_dim": 8, "layers_block_type": ["mamba", "attention", "moe"], "chunk_size": 8,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "moe_shared_expert_intermediate_size": 32,
    },
    "mamba": {"state_size": 8, "expand": 2},
    "lfm2": {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
}  # fmt: skip
"""Families that compute a row for each response: recurrent and hybrid ones, and those whose attention is their own."""
_VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
COMPOSITE: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": {"model_type": "gemma3_text", "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14, **_VISION},
        "mm_tokens_per_image": 4, "image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7,
    },
    "gemma4": {
        "text_config": {"model_type": "gemma4_text", **GEMMA4, "hidden_size_per_layer_input": 6,
                        "vocab_size_per_layer_input": VOCABULARY},
        "vision_config": {"num_key_value_heads": 2, "head_dim": 8, **_VISION},
        "image_token_id": 5, "boi_token_id": 6, "eoi_token_id": 7, "video_token_id": 8, "audio_config": None,
    },
    "qwen3_5": {
        "text_config": UNSHARED["qwen3_5_text"],
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 32,
        },
        "image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8,
    },
    "mistral3": {
        "text_config": {"model_type": "mistral", "num_key_value_heads": 2, "head_dim": 8},
        "vision_config": {"model_type": "pixtral", "image_size": 28, "patch_size": 14, "head_dim": 8, **_VISION},
        "image_token_index": 5,
    },
}  # fmt: skip
"""Models that read images too; the sizes of their text part are those of the others."""

LENGTHS = (12, 1, 7, 7, 3, 14, 2, 5)
PIECES: list[Piece] = [(0, [0, 2]), (0, [5]), (0, [1, 3, 4, 6, 7])]
"""Of :func:`large_set`."""


@dataclass(frozen=True)
class Tokens:
    id: str
    prompt_ids: np.ndarray
    response_ids: list[np.ndarray]


def ragged_batch() -> TokenBatch:
    """Three sets of different sizes, some responses of them left out."""
    draw = np.random.default_rng(0)

    def ids(low: int, high: int) -> np.ndarray:
        return draw.integers(0, VOCABULARY, draw.integers(low, high)).astype(np.int32)

    sets = [Tokens(str(i), ids(3, 12), [ids(1, 15) for _ in range(k)]) for i, k in enumerate((3, 1, 5))]
    return collate(sets, [[0, 2], [0], [0, 1, 3, 4]])


def model(family: str, **more: Any) -> PreTrainedModel:
    """Two layers of the family with random weights, the same at every call, attending as when it is loaded."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SMALL | FAMILIES[family] | more))
    attention = attention_choice(config, AutoModelForCausalLM)
    lm = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for name, parameter in lm.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return lm.eval()


def config_of(family: str) -> PreTrainedConfig:
    """The config of a small model of any family here."""
    if family in COMPOSITE:
        more = COMPOSITE[family]
        return AutoConfig.for_model(family, **(more | {"text_config": SMALL | more["text_config"]}))
    more = (FAMILIES | UNSHARED)[family]
    small = {
        name: value for name, value in SMALL.items() if name != "num_hidden_layers" or "layers_block_type" not in more
    }
    return AutoConfig.for_model(family, **(small | more))


def saved(family: str, folder: Path) -> PreTrainedModel:
    """A small model of any family here, in a folder too; weights are large enough to show a mistake."""
    torch.manual_seed(0)
    loader = AutoModelForImageTextToText if family in COMPOSITE else AutoModelForCausalLM
    lm = loader.from_config(config_of(family), attn_implementation="eager").eval()
    for parameter in lm.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
        else:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    lm.save_pretrained(folder)
    return lm  # type: ignore[no-any-return]


def plain_logps(lm: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Token log-probs ``[B,K,T]`` of ``batch``, 0 where there is none: a forward pass of the model a response."""
    lengths = batch.response_lengths_R.tolist()
    logps_BKT = torch.zeros(batch.sets, batch.responses, max(lengths))
    for r, length in enumerate(lengths):
        s, b, k = (int(index[r]) for index in (batch.prompt_of_R, batch.set_index_R, batch.response_index_R))
        start = int(batch.prompt_lengths_S[s])
        at = torch.cat([batch.prompt_index_SP[s, :start], batch.response_index_RT[r, :length]])
        ids_1T = batch.input_ids_N[at].unsqueeze(0)
        with torch.no_grad():
            logps_TV = lm(input_ids=ids_1T, use_cache=False).logits[0].float().log_softmax(-1)
        logps_BKT[b, k, :length] = logps_TV[start - 1 : -1].gather(-1, ids_1T[0, start:, None]).squeeze(-1)
    return logps_BKT


def logps_and_gradients(
    policy: PolicyModule, batch: TokenBatch | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Token log-probs of a batch and the parameters' gradients of a weighted sum of them, on the CPU.

    Args:
        batch: default :func:`ragged_batch`.
    """
    logps_BKT = policy((batch or ragged_batch()).to(policy.device)).token_logps_BKT.cpu()
    weights_BKT = torch.randn(logps_BKT.shape, generator=torch.Generator().manual_seed(1))
    policy.zero_grad()
    (logps_BKT * weights_BKT).sum().backward()
    gradients = {name: p.grad.cpu().clone() for name, p in policy.named_parameters() if p.grad is not None}
    return logps_BKT.detach(), gradients


def large_set(prompt: int = 9) -> Tokens:
    draw = np.random.default_rng(3)
    prompt_ids, *responses = (draw.integers(0, VOCABULARY, n).astype(np.int32) for n in (prompt, *LENGTHS))
    return Tokens("0", prompt_ids, responses)


def in_pieces(
    policy: PolicyModule, tokens: Tokens, pieces: list[Piece], keep: int = 30
) -> tuple[Tensor, dict[str, Tensor]]:
    """As :func:`logps_and_gradients` has them: forwards by piece, then backwards, the first last.

    Attention's outputs are kept for the pieces that are there within ``keep`` tokens; of :data:`PIECES` for two.
    """
    forwards = laid_out([tokens], pieces, policy.shares_prefix, keep)
    with torch.no_grad():
        seen = [policy(one.batch.to(policy.device), one.prompt, one.first) for one in forwards]
    logps_1KT = reduce(joined, seen).token_logps_BKT
    weights_1KT = torch.randn(logps_1KT.shape, generator=torch.Generator().manual_seed(1)).to(policy.device)
    policy.zero_grad()
    for one in reversed(forwards):
        again: ResponseLogps = policy(one.batch.to(policy.device), one.prompt, one.first)
        values_1KT = again.token_logps_BKT
        (values_1KT * weights_1KT[..., : values_1KT.shape[-1]]).sum().backward()
    gradients = {name: p.grad.cpu().clone() for name, p in policy.named_parameters() if p.grad is not None}
    return logps_1KT.cpu(), gradients
