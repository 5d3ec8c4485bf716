"""QLoRA: adapters on weights in 4 bits train as on the whole weights that these stand for, and are merged into them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from mpo.config.training import LoraConfig, Precision, Quantization
from mpo.errors import UserError
from mpo.policy.load import load_policy
from mpo.policy.module import PolicyModule
from mpo.train.export import export_adapter, export_policy
from tests.families import logps_and_gradients, ragged_batch

pytest.importorskip("bitsandbytes")
LORA = LoraConfig(rank=4, alpha=8.0)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model whose rows the library can quantise: of 64 numbers or more."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.1, bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def with_random_adapters(policy: PolicyModule) -> PolicyModule:
    torch.manual_seed(1)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    return policy.train()


@pytest.mark.parametrize("checkpointing", [0, 1])
def test_gradients_are_those_of_the_weights_that_four_bits_stand_for(base: Path, checkpointing: int) -> None:
    export_policy(load_policy(str(base), lora=LORA, quantization=Quantization.nf4), base.parent / "stood for")
    quantized = load_policy(str(base), None, Precision.fp32, False, checkpointing, LORA, Quantization.nf4)
    assert quantized.shares_prefix
    assert {type(module).__name__ for module in quantized.base.modules()} >= {"Linear4bit"}
    found_BKT, found = logps_and_gradients(with_random_adapters(quantized))
    whole = load_policy(str(base.parent / "stood for"), activation_checkpointing=checkpointing, lora=LORA)
    expected_BKT, expected = logps_and_gradients(with_random_adapters(whole))
    torch.testing.assert_close(found_BKT, expected_BKT, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys() and len(found) == 2 * 2 * 7
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()), msg=name)


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.fp32, 1e-5), (Precision.bf16, 0.1)])
def test_what_is_exported_is_whole_and_the_trained_policy(base: Path, precision: Precision, tolerance: float) -> None:
    policy = with_random_adapters(
        load_policy(str(base), precision=precision, lora=LORA, quantization=Quantization.nf4)
    ).eval()
    export_policy(policy, base.parent / "policy")
    export_adapter(policy, base.parent / "adapter")
    assert "quantization_config" not in json.loads((base.parent / "policy" / "config.json").read_text())
    assert (base.parent / "adapter" / "adapter_model.safetensors").is_file()
    exported = load_policy(str(base.parent / "policy"), precision=precision)
    with torch.no_grad():
        found_BKT, expected_BKT = (one(ragged_batch()).token_logps_BKT for one in (exported, policy))
    torch.testing.assert_close(found_BKT, expected_BKT, rtol=0.0, atol=tolerance)


def test_a_model_that_is_in_four_bits_already_is_refused(base: Path) -> None:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(base, quantization_config=config).save_pretrained(base.parent / "narrow")
    for quantization in (None, Quantization.nf4):
        with pytest.raises(UserError, match="quantised .*give the model before it was quantised"):
            load_policy(str(base.parent / "narrow"), lora=LORA, quantization=quantization)
