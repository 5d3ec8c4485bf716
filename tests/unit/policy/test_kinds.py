"""Hybrid, recurrent and image-text families: their own log-probs, their own config, the same kind of model exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mpo.config.training import Precision
from mpo.errors import ConfigError
from mpo.policy.load import load_policy
from mpo.train.export import export_policy
from tests.families import COMPOSITE, UNSHARED, logps_and_gradients, plain_logps, ragged_batch, saved

IN_TEXT = ("language_model", "lm_head", "embed_tokens")
"""Parts of the names of weights of a composite model's text part."""


def differences(one: dict[str, Any], other: dict[str, Any], at: str = "") -> set[str]:
    """Keys in which two configs differ."""
    found = set()
    for key in {*one, *other}:
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{at}{key}.")
        elif a != b:
            found.add(f"{at}{key}")
    return found


@pytest.mark.parametrize("family", [*UNSHARED, *COMPOSITE, "gemma2", "gpt_oss"])
def test_a_family_trains_and_is_exported_as_itself(family: str, tmp_path: Path) -> None:
    lm = saved(family, source := tmp_path / "source")
    if family in COMPOSITE:
        (source / "preprocessor_config.json").write_text('{"image_processor_type": "any"}')
    policy = load_policy(str(source))
    policy.train()
    assert policy.shares_prefix == (family not in UNSHARED and family != "qwen3_5")
    batch = ragged_batch()
    logps_BKT, gradients = logps_and_gradients(policy, batch)
    torch.testing.assert_close(logps_BKT, plain_logps(lm, batch), rtol=1e-5, atol=2e-5)
    assert torch.equal(policy(batch).token_logps_BKT, logps_BKT)  # nothing in it is random
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    with torch.no_grad():
        torch._foreach_add_(list(policy.parameters()), 0.01)
    export_policy(policy, out := tmp_path / "out")
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, out))
    assert {key for key in differences(before, after) if key.rpartition(".")[2] != "dtype"} == set()
    kind = getattr(transformers, before["architectures"][0])
    exported = kind.from_pretrained(out, attn_implementation="eager").eval()
    torch.testing.assert_close(
        plain_logps(exported, batch), policy(batch).token_logps_BKT.detach(), rtol=1e-5, atol=2e-5
    )
    was, now = (load_file(folder / "model.safetensors") for folder in (source, out))
    assert was.keys() == now.keys()
    buffers = {name.rpartition(".")[2] for name, _ in lm.named_buffers()}
    for name, value in was.items():
        if name.rpartition(".")[2] in buffers:
            continue
        trained = family not in COMPOSITE or any(part in name for part in IN_TEXT)
        assert torch.equal(now[name], value) != trained, name
    assert (out / "preprocessor_config.json").exists() == (family in COMPOSITE)


def test_vision_weights_keep_their_precision(tmp_path: Path) -> None:
    saved("gemma3", source := tmp_path / "source")
    export_policy(load_policy(str(source), precision=Precision.bf16), out := tmp_path / "out")
    was, now = (load_file(folder / "model.safetensors") for folder in (source, out))
    for name, value in was.items():
        if any(part in name for part in IN_TEXT):
            assert torch.equal(now[name], value.bfloat16()), name
        else:
            assert now[name].dtype == torch.float32 and torch.equal(now[name], value), name


def test_layers_that_are_computed_again_have_no_dropout(tmp_path: Path) -> None:
    """They are in training mode, and OPT's apply dropout themselves."""
    config = transformers.OPTConfig(
        vocab_size=99, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
        max_position_embeddings=64, dropout=0.5, attention_dropout=0.5, layerdrop=0.5,
    )  # fmt: skip
    lm = transformers.OPTForCausalLM(config).eval()
    lm.save_pretrained(tmp_path / "source")
    policy = load_policy(str(tmp_path / "source"), activation_checkpointing=True)
    policy.train()
    batch = ragged_batch()
    logps_BKT, gradients = logps_and_gradients(policy, batch)
    torch.testing.assert_close(logps_BKT, plain_logps(lm, batch), rtol=1e-5, atol=2e-5)
    plain = load_policy(str(tmp_path / "source"))
    for name, gradient in logps_and_gradients(plain, batch)[1].items():
        torch.testing.assert_close(gradients[name], gradient)
    export_policy(policy, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (kept["dropout"], kept["attention_dropout"], kept["layerdrop"]) == (0.5, 0.5, 0.5)


def test_a_family_that_cannot_compute_layers_again_says_which_switch(tmp_path: Path) -> None:
    lm = saved("mamba", tmp_path)
    type(lm).supports_gradient_checkpointing, kept = False, type(lm).supports_gradient_checkpointing
    try:
        with pytest.raises(ConfigError, match=r"train.activation_checkpointing: model type mamba .*; set it to false"):
            load_policy(str(tmp_path), activation_checkpointing=True)
    finally:
        type(lm).supports_gradient_checkpointing = kept
