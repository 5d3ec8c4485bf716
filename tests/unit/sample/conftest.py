"""A tiny policy that vLLM loads too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mpo.testbed.tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose generation config would change every draw, were it applied."""
    folder = tmp_path_factory.mktemp("policy")
    build_tokenizer(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=111, max_position_embeddings=64, initializer_range=0.3, **sizes))
    model.generation_config.update(do_sample=True, temperature=0.1, top_k=2, repetition_penalty=3.0)
    model.save_pretrained(folder)
    return folder
