"""Small models of every family that shares prompts, and a batch to compare layouts with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mpo.logprobs.batch import TokenBatch, collate
from mpo.logprobs.packing import Piece
from mpo.logprobs.pieces import joined, laid_out
from mpo.logprobs.policy import PolicyModule, ResponseLogps

VOCABULARY = 99
SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, int]] = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 5},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
    "phi3": {"num_key_value_heads": 2, "sliding_window": 6},
    "gpt_neox": {},
    "olmo2": {"num_key_value_heads": 2},
    "qwen3_moe": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
}

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


def model(family: str, **more: int) -> PreTrainedModel:
    """Two layers of the family with random weights, the same at every call."""
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SMALL | FAMILIES[family] | more)))
    return lm.eval()


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
