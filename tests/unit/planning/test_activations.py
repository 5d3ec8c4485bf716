"""Activations: by hand, and beside what autograd keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mpo.config.training import LoraConfig, Precision, Quantization, TrainConfig
from mpo.layout.shape_buckets import stepped_row
from mpo.planning.activations import (
    activation_bytes,
    shared_prompt_bytes,
    working_bytes,
)
from mpo.planning.data_size import DataSize
from mpo.planning.memory import (
    OUTPUTS_KEPT,
    kept_output_tokens,
    shared_prompt_tokens,
    tokens_at_once,
    training_memory,
)
from mpo.planning.sizes import GATED, read_architecture
from mpo.policy.load import load_policy, make_policy
from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import share_prefix
from mpo.train.window import OUTPUTS_KEPT as OUTPUTS_OF_THE_WINDOW
from tests.families import ragged_batch
from tests.unit.planning.shapes import BACKWARDS, EVERY_LAYER, LLAMA3_8B, PAPER, TESTBED


def test_checkpointing_keeps_a_layers_input() -> None:
    assert activation_bytes(LLAMA3_8B, 1000, 2, False) == 1000 * 2 * (32 * EVERY_LAYER + BACKWARDS)
    kept = activation_bytes(LLAMA3_8B, 1000, 2, True)
    assert kept == 1000 * 2 * (32 * 4096 + EVERY_LAYER - 4096 + BACKWARDS)
    more = activation_bytes(LLAMA3_8B, 2000, 2, True)
    assert more == 2 * kept


def test_every_third_layer_keeps_its_input_and_the_others_what_they_made() -> None:
    numbers = 11 * 4096 + 21 * EVERY_LAYER  # layers 0, 3, …, 30
    numbers += EVERY_LAYER - 4096 + BACKWARDS  # one of them goes backwards
    assert activation_bytes(LLAMA3_8B, 1000, 2, 3) == 1000 * numbers * 2
    found = [activation_bytes(LLAMA3_8B, 1000, 2, every) for every in (1, 2, 3, 4, 0)]
    assert found == sorted(found) and len(set(found)) == 5
    # Of a shared prompt's 1,000 tokens: keys, values and their gradient in float32; 21 layers have a copy.
    assert shared_prompt_bytes(LLAMA3_8B, 1000, 2, 3) == 1000 * 2 * 8 * 128 * (32 * 6 + 21 * 2)


def test_pieces_keep_a_prompts_keys_and_values_and_their_gradient() -> None:
    numbers = 1000 * 32 * 2 * 8 * 128  # tokens, layers, keys and values, heads of 128
    whole, pieces = (training_memory(LLAMA3_8B, PAPER, 8, 4000, prompt) for prompt in (0, 1000))
    per_number = 2 + 4 if PAPER.settled.activation_checkpointing else 2 + 4 + 2
    assert pieces.activations - whole.activations == numbers * per_number
    budget = replace(PAPER, micro_tokens=3000)
    assert [shared_prompt_tokens(budget, 1000, 500, responses) for responses in (4, 5)] == [0, 1000]


def test_pieces_on_a_cpu_keep_what_attention_computed_up_to_a_bound() -> None:
    budget = replace(TESTBED, micro_tokens=3000)
    found = [kept_output_tokens(budget, 1000, 500, responses) for responses in (4, 5, 512)]
    assert found == [0, 3500, 8 * 3000] and OUTPUTS_KEPT == OUTPUTS_OF_THE_WINDOW
    sets = DataSize(sets=1, responses=512, prompt_tokens=1000, response_tokens=500)
    assert [tokens_at_once(budget, sets, device)[2] for device in ("cpu", "cuda")] == [24_000, 0]
    whole, pieces = (training_memory(LLAMA3_8B, TESTBED, 8, 4000, 0, outputs) for outputs in (0, 48_000))
    assert pieces.activations - whole.activations == 48_000 * 32 * 4096 * 4  # tokens, layers, hidden, bytes


def kept_bytes(model_type: str, layers: int, dtype: torch.dtype) -> tuple[int, int]:
    """What autograd keeps of a batch, and for how many tokens."""
    values = {**SMALL_SHAPE, "num_hidden_layers": layers, "model_type": model_type, "pad_token_id": None}
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values)).to(dtype)
    assert share_prefix(lm)
    return kept_by(make_policy(lm))


def kept_by(policy: PolicyModule) -> tuple[int, int]:
    """What autograd keeps of a batch beside parameters, and for how many tokens."""
    batch = ragged_batch()
    kept: dict[int, torch.Tensor] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        assert policy(batch).logps_BK.requires_grad
    tokens = stepped_row(batch.tokens, policy.head.weight)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), tokens


SMALL_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 100,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", GATED)
def test_activations_are_about_what_autograd_keeps(model_type: str, dtype: torch.dtype) -> None:
    """Of a layer: what all layers share, and the head's, are the same for two layers as for five."""
    (few, tokens), (many, _) = (kept_bytes(model_type, layers, dtype) for layers in (2, 5))
    shape = read_architecture({**SMALL_SHAPE, "num_hidden_layers": 2, "model_type": model_type})
    estimate = shape.kept_bytes(dtype.itemsize)
    assert 0.9 < estimate / ((many - few) / 3 / tokens) < 1.25
    working = working_bytes(shape, tokens, dtype.itemsize, 0)
    assert activation_bytes(shape, tokens, dtype.itemsize, 0) == tokens * 2 * estimate + working


@pytest.mark.parametrize("precision", list(Precision))
def test_activations_over_weights_in_4_bits_are_about_what_autograd_keeps(precision: Precision, tmp_path: Path) -> None:
    """Their MLPs keep the gate's activation and the product, which others compute again."""
    pytest.importorskip("bitsandbytes")
    sizes = {**SMALL_SHAPE, "model_type": "llama", "hidden_size": 128, "intermediate_size": 320, "head_dim": 32}

    def kept(layers: int) -> tuple[int, int]:
        folder = tmp_path / str(layers)
        config = AutoConfig.for_model(**sizes, num_hidden_layers=layers, bos_token_id=None, eos_token_id=2)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        lora = LoraConfig(rank=1, quantization=Quantization.nf4)
        policy = load_policy(str(folder), precision=precision, lora=lora, quantization=lora.quantization)
        return kept_by(policy.to(torch.bfloat16 if precision is Precision.bf16 else torch.float32).train())

    (few, tokens), (many, _) = (kept(layers) for layers in (2, 5))
    found = (many - few) / 3 / tokens
    shape, width = read_architecture({**sizes, "num_hidden_layers": 3}), 2 if precision is Precision.bf16 else 4
    train = TrainConfig(precision=precision, activation_checkpointing=0, lora=LoraConfig(quantization=Quantization.nf4))
    planned = training_memory(shape, train, 2, tokens, stage=2).activations
    planned -= working_bytes(shape, tokens, width, 0)
    print(f"{precision.name}: {planned / 3 / tokens:.0f} planned of a token and layer, {found:.0f} kept")
    assert 0.9 < planned / 3 / tokens / found < 1.1
