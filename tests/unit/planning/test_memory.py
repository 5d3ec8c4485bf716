"""Memory and disk: the terms by hand, and what must order them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mpo.config.schema import LauncherConfig, RunConfig
from mpo.config.training import LoraConfig, Offload, Precision, Quantization, TrainConfig
from mpo.layout.shape_buckets import ROWS as ROWS_OF_THE_HEAD
from mpo.layout.shape_buckets import stepped_row
from mpo.planning.activations import (
    LOGITS_AT_ONCE,
    ROWS,
    VOCABULARY_AT_ONCE,
    activation_bytes,
    head_bytes,
    shared_prompt_bytes,
    working_bytes,
)
from mpo.planning.buckets import bucket_elements
from mpo.planning.data_size import DataSize
from mpo.planning.disk import checkpoint_bytes, export_bytes, run_disk
from mpo.planning.forecast import planned_device
from mpo.planning.memory import (
    LIBRARIES,
    OUTPUTS_KEPT,
    effective_stage,
    frozen_memory,
    kept_output_tokens,
    micro_batch_tokens,
    scored_at_once,
    shared_prompt_tokens,
    stages,
    tokens_at_once,
    training_memory,
    weight_bytes,
)
from mpo.planning.sizes import GATED, read_architecture
from mpo.policy.head import LOGITS_AT_ONCE as LOGITS_OF_THE_HEAD
from mpo.policy.head import VOCABULARY_AT_ONCE as VOCABULARY_OF_THE_HEAD
from mpo.policy.load import load_policy, make_policy
from mpo.policy.module import PolicyModule
from mpo.policy.shared_prefix import share_prefix
from mpo.train.window import OUTPUTS_KEPT as OUTPUTS_OF_THE_WINDOW
from mpo.train.zero import deepspeed_config
from tests.families import ragged_batch

LLAMA3_8B = read_architecture(
    {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    }
)
P = 8_030_261_248
WEIGHTS_GRADIENT = 128256 * 4096 * 2 + 32064 * 4096 * (4 + 2)
"""Of the head in bfloat16, and of a fourth of its entries its sum in float32 and what is added to that."""
COPIED_GRADIENT = 128256 * 4096 * (2 + 4)
"""Of the head in bfloat16, and DeepSpeed's copy in float32."""
PAPER = TrainConfig()
TESTBED = TrainConfig(precision=Precision.fp32, zero_stage=0, activation_checkpointing=False)


def test_zero_shares_out_the_states() -> None:
    three = training_memory(LLAMA3_8B, PAPER, 8, 1000)
    assert (three.weights, three.gradients, three.optimizer) == (2 * P // 8, 4 * P // 8, 12 * P // 8)
    assert three.gathered == LLAMA3_8B.embedding * 2  # larger than two layers' 2 · 218 M
    assert (three.host, three.checkpoint) == (12 * P // 8, 0)  # the copy of what a checkpoint has
    two = training_memory(LLAMA3_8B, PAPER, 8, 1000, stage=2)
    assert (two.weights, two.gradients, two.gathered) == (2 * P, 4 * P // 8, 0)
    assert two.host == (2 + 12 / 8) * P
    assert training_memory(LLAMA3_8B, replace(PAPER, checkpoint_async=False), 8, 1000).host == 0
    none = training_memory(LLAMA3_8B, TESTBED, 8, 1000)
    assert (none.weights, none.gradients, none.optimizer) == (4 * P, 4 * P, 8 * P)
    on_cpu = training_memory(LLAMA3_8B, TESTBED, 8, 1000, device="cpu")
    assert (on_cpu.host, on_cpu.checkpoint) == (0, 12 * P)
    one = training_memory(LLAMA3_8B, TESTBED, 8, 1000, stage=1)
    assert (one.weights, one.gradients, one.optimizer) == (4 * P, 4 * P, 12 * P // 8)


def test_each_stage_needs_less_than_the_one_before() -> None:
    for precision, running in ((Precision.fp32, [0, 1, 2, 3]), (Precision.bf16, [1, 2, 3])):
        found = stages(LLAMA3_8B, replace(PAPER, precision=precision), 8, 4096)
        assert [memory.stage for memory in found] == running
        sizes = [memory.device for memory in found]
        assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)


def test_the_papers_setting_fits_its_gpus() -> None:
    tokens = micro_batch_tokens(PAPER, 180, 280, 4)
    assert tokens == 2 * (180 + 4 * 280)
    assert micro_batch_tokens(replace(PAPER, micro_tokens=1000), 180, 280, 4) == 1000
    assert micro_batch_tokens(replace(PAPER, micro_tokens=100), 180, 280, 4) == 460
    assert training_memory(LLAMA3_8B, PAPER, 8, tokens).device < 40 * 2**30
    assert training_memory(LLAMA3_8B, PAPER, 1, tokens).device > 80 * 2**30


def test_offloading_moves_and_loses_nothing() -> None:
    paper = replace(PAPER, checkpoint_async=False)
    on = training_memory(LLAMA3_8B, paper, 8, 1000)
    optimizer = training_memory(LLAMA3_8B, replace(paper, offload=Offload.optimizer), 8, 1000)
    everything = training_memory(LLAMA3_8B, replace(paper, offload=Offload.parameters), 8, 1000)
    copied = on.gradients  # what is summed on the host is copied there once more for the optimizer
    assert optimizer.device + optimizer.host == on.device + copied == everything.device + everything.host
    assert everything.device < optimizer.device < on.device
    two = training_memory(LLAMA3_8B, replace(paper, offload=Offload.optimizer), 8, 1000, stage=2)
    assert (two.gradients, two.host) == (4 * P // 8, 16 * P // 8)


def test_in_bfloat16_a_process_alone_shares_nothing() -> None:
    def running(processes: int, **changed: Any) -> list[int]:
        return [effective_stage(replace(PAPER, **changed), stage, processes) for stage in range(4)]

    assert running(2) == [1, 1, 2, 3]
    assert running(2, offload=Offload.optimizer) == running(1, offload=Offload.parameters) == [2, 2, 2, 3]
    assert running(1) == [1, 1, 1, 1]
    assert running(1, offload=Offload.optimizer) == [2, 2, 2, 2]
    assert running(1, precision=Precision.fp32) == [0, 1, 2, 3]


def test_adapters_need_states_for_themselves_alone() -> None:
    full, lora = (training_memory(LLAMA3_8B, replace(PAPER, lora=lora), 8, 1000) for lora in (None, LoraConfig()))
    assert lora.optimizer < full.optimizer / 100 and lora.weights > full.weights
    states, backwards = 1000 * 4096 * (2 + 2 + 4), 1000 * 2 * (BACKWARDS + EVERY_LAYER - 4096)
    assert full.logits == states + COPIED_GRADIENT - backwards
    assert lora.logits == states + 1000 * (32064 * (4 + 4 + 2) + 4096 * 2) - backwards  # a frozen head has no gradient


EVERY_LAYER = 4 * 4096 + 2 * 32 * 128 + 2 * 8 * 128 + 2 * 14336
"""What a layer keeps of a token: inputs and outputs of its norms, q, its output, k, v, gate, up."""
BACKWARDS = 4096 + 3 * 14336
"""What it adds while it goes backwards."""


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


def test_logits_are_bounded_as_the_head_bounds_them() -> None:
    assert {device: LOGITS_OF_THE_HEAD[device] for device in LOGITS_AT_ONCE} == LOGITS_AT_ONCE
    assert {device: VOCABULARY_OF_THE_HEAD[device] for device in VOCABULARY_AT_ONCE} == VOCABULARY_AT_ONCE
    # A block is a fourth of 128,256 entries and the positions with which it has no more than 2^27 logits.
    assert ROWS == ROWS_OF_THE_HEAD and (1 << 27) // 32064 == 4185
    entries, most = 32064, 4160

    def of_tokens(tokens: int, rows: int) -> int:
        """Hidden states twice, their gradient, logits and softmax, what the weights are multiplied with."""
        return tokens * 4096 * (2 + 2 + 4) + rows * entries * (4 + 4 + 2) + rows * 4096 * 2

    nothing_again = replace(PAPER, activation_checkpointing=False)
    for tokens, rows in ((4000, 4000), (5000, most)):
        # What the layers need afterwards counts among the activations.
        expected = of_tokens(tokens, rows) + WEIGHTS_GRADIENT - tokens * 2 * BACKWARDS
        assert training_memory(LLAMA3_8B, nothing_again, 8, tokens).logits == expected
    copied = 10 * 4096 * (2 + 2 + 4) + COPIED_GRADIENT - 10 * 2 * BACKWARDS  # larger than the logits of a few tokens
    assert training_memory(LLAMA3_8B, nothing_again, 8, 10).logits == copied
    assert training_memory(LLAMA3_8B, PAPER, 8, 10**6).logits == 0  # a layer needs more


def test_the_head_computes_logits_of_responses_alone() -> None:
    sets = DataSize(sets=1, responses=4, prompt_tokens=1000, response_tokens=250)
    budgets = {4000: 2000, 2000: 1000, 1999: 1000, 600: 600, 100: 250}
    assert {tokens: scored_at_once(replace(PAPER, micro_tokens=tokens), sets) for tokens in budgets} == budgets
    train = replace(PAPER, activation_checkpointing=False, lora=LoraConfig())
    whole, half = (training_memory(LLAMA3_8B, train, 8, 4000, scored=scored) for scored in (4000, 3000))
    per_position = 32064 * (4 + 4 + 2) + 4096 * (2 + 4 + 2)
    assert whole.logits - half.logits == 1000 * per_position and whole.activations == half.activations


def test_a_tied_heads_gradient_waits_for_the_embeddings() -> None:
    """Its copy in float32 is made when the activations are gone."""
    tied = replace(LLAMA3_8B, tied=True)
    assert training_memory(tied, PAPER, 8, 10**6).logits == 128256 * 4096 * 2
    assert training_memory(tied, PAPER, 8, 1).logits < COPIED_GRADIENT
    assert training_memory(tied, replace(PAPER, lora=LoraConfig()), 8, 10**6).logits == 0


def test_a_process_alone_adds_the_weights_gradient_in_place_on_a_cpu() -> None:
    for train, gradient in ((TESTBED, 128256 * 4096 * 4), (PAPER, 128256 * 4096 * 2)):
        alone, shared = (training_memory(LLAMA3_8B, train, processes, 8, device="cpu") for processes in (1, 8))
        assert shared.logits > gradient > 100 * alone.logits


def test_float32_copies_of_the_heads_gradients_by_hand() -> None:
    """Of 1,000 tokens; a vocabulary of 40,000 is summed in two blocks of 20,000 entries."""
    shape = replace(LLAMA3_8B, vocab=40_000, hidden=1_000, heads=8, head_dim=125)
    states, logits, operand = 1_000 * 1_000 * (2 + 2 + 4), 1_000 * 20_000 * (4 + 4 + 2), 1_000 * 1_000 * 2
    narrow, block, copy = 40_000 * 1_000 * 2, 20_000 * 1_000 * (4 + 2), 40_000 * 1_000 * 4
    assert logits + block > copy  # 320 MB above 160 MB
    found = [head_bytes(shape, 1_000, 1_000, 2, "cuda", own, 0) for own in (True, False)]
    without = states + logits + operand
    assert found == [without + narrow + block, without] == [410_000_000, 210_000_000]
    assert head_bytes(shape, 1_000, 1_000, 2, "cuda", True, 10**6) == 409_000_000  # a layer takes the rest anyway
    # Of 100 tokens the copy of all is larger than their logits, 20 MB, and the sum of a block.
    assert head_bytes(shape, 100, 100, 2, "cuda", True, 0) == 100 * 1_000 * 8 + narrow + copy
    # In float32 the gradient is sent and summed as it is.
    wide = 1_000 * (4 + 4 + 4) + 20_000 * (4 + 4) + 1_000 * 4 + 40_000 * 1_000 * 4 + 20_000 * 1_000 * 4
    assert head_bytes(shape, 1, 1, 4, "cuda", True, 0) == wide


def test_buffers_for_gradients_by_hand() -> None:
    def buckets(stage: int, processes: int = 8, **changed: Any) -> int:
        return training_memory(LLAMA3_8B, replace(PAPER, **changed), processes, 30_000, stage=stage).buckets

    bucket, nothing_again = 100_000_000, {"activation_checkpointing": False}
    every = training_memory(LLAMA3_8B, PAPER, 8, 30_000)
    assert every.logits == 0  # a layer needs more, so that a full buffer's copies count
    assert buckets(3) == every.buckets == bucket * 4 + bucket * 4
    assert buckets(2) == bucket * 2 + bucket * (2 + 4)
    assert buckets(3, **nothing_again) == bucket * 4 and buckets(2, **nothing_again) == bucket * 2
    assert buckets(1, precision=Precision.fp32) == bucket * 4 + bucket * 4
    # When the backward pass is over: 500M elements, then the embedding, are less than the activations were.
    assert buckets(1) == 0
    few = training_memory(LLAMA3_8B, PAPER, 8, 10, stage=1)
    copied = (500_000_000 + 128256 * 4096) * 4
    assert few.buckets + few.activations + few.logits == copied
    assert training_memory(LLAMA3_8B, PAPER, 1, 10).buckets == 0
    # Adapters never fill a buffer, whose size is the whole model's.
    assert buckets(3, lora=LoraConfig()) == bucket * 4


def test_deepspeeds_buffer_has_the_planned_size() -> None:
    for parameters in (1_000, P):
        size = deepspeed_config(PAPER, 3, parameters, 4096)["zero_optimization"]["reduce_bucket_size"]
        assert size == bucket_elements(parameters) == min(parameters, 100_000_000)


def test_on_a_cpu_the_libraries_count() -> None:
    assert training_memory(LLAMA3_8B, PAPER, 8, 8).libraries == 0
    assert training_memory(LLAMA3_8B, PAPER, 8, 8, device="cpu").libraries == LIBRARIES["cpu"]


@pytest.mark.parametrize(
    ("cards", "planned", "device"),
    [(0, RunConfig(), "cpu"), (0, RunConfig(dry_run=True), "cpu"), (1, RunConfig(), "cuda"),
     (0, RunConfig(dry_run=True, launcher=LauncherConfig(processes=8)), "cuda"),
     (0, RunConfig(launcher=LauncherConfig(processes=8)), "cpu")],
)  # fmt: skip
def test_a_plan_for_a_group_in_bfloat16_is_one_for_gpus(
    cards: int, planned: RunConfig, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cards > 0)
    assert planned_device(planned) == device


def test_the_reference_pass_needs_no_states() -> None:
    alone = frozen_memory(LLAMA3_8B, Precision.bf16, 4000)
    assert 2 * P < alone < training_memory(LLAMA3_8B, PAPER, 1, 4000).device
    # First the layers one by one, then the head.
    many, few = (frozen_memory(LLAMA3_8B, Precision.bf16, tokens) - 2 * P for tokens in (16000, 1000))
    assert many == 16000 * (4 * 4096 + 3 * 14336) * 2
    assert few == 1000 * (2 * 4096 * 2 + 32064 * (2 + 4 + 4))


def test_a_reference_larger_than_a_card_is_shared_out() -> None:
    def held(card: int | None, processes: int = 8, device: str = "cuda") -> int:
        used = {"device": device, "processes": processes, "card": card}
        return frozen_memory(LLAMA3_8B, Precision.bf16, 1000, **used) - LIBRARIES[device]  # type: ignore[arg-type]

    computed = 1000 * (2 * 4096 * 2 + 32064 * (2 + 4 + 4))
    assert 0.6 * 27e9 > 2 * P > 0.6 * 26e9
    assert held(27 * 10**9) == held(None) == held(26 * 10**9, 1) == 2 * P + computed
    assert held(26 * 10**9) == 2 * P // 8 + 128256 * 4096 * 2 + computed  # a shard, and the embedding gathered
    assert held(26 * 10**9, device="cpu") > 2 * P


def test_zero_3_loads_one_parameter_after_the_other() -> None:
    largest = 128256 * 4096 * 2
    assert training_memory(LLAMA3_8B, PAPER, 8, 1000).loading == 2 * P // 8 + largest
    assert training_memory(LLAMA3_8B, replace(PAPER, offload=Offload.parameters), 8, 1000).loading == largest
    assert training_memory(LLAMA3_8B, PAPER, 8, 1000, stage=2).loading == 2 * P
    few = replace(LLAMA3_8B, vocab=1000)
    mlp = 14336 * 4096 * 2
    assert training_memory(few, PAPER, 8, 1000).loading == -(-2 * few.parameters // 8) + mlp
    fused = replace(few, fused=True)  # gate and up are one
    assert training_memory(fused, PAPER, 8, 1000).loading - training_memory(few, PAPER, 8, 1000).loading == mlp


def test_a_second_copy_of_the_weights_is_shared_out_within_a_machine() -> None:
    plain, second = (
        training_memory(LLAMA3_8B, replace(PAPER, zero_hpz=hpz), 16, 1000, nodes=2) for hpz in (False, True)
    )
    assert second.weights == 2 * P // 16 + 2 * P // 8 and plain.weights == 2 * P // 16
    assert second == replace(plain, weights=second.weights)
    found = stages(LLAMA3_8B, replace(PAPER, zero_hpz=True), 16, 1000, nodes=2)
    assert [one.weights for one in found] == [2 * P, 2 * P, second.weights]


def test_weights_in_4_bits_by_hand() -> None:
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    rest = 2 * 128256 * 4096 + 65 * 4096  # embedding, head, norms
    assert linear + rest == P
    # Half a byte each, a byte for each 64, four for each 64 · 256 of them.
    packed = linear // 2 + linear // 64 + linear // (64 * 256) * 4
    assert weight_bytes(LLAMA3_8B, 2, Quantization.nf4) == packed + 2 * rest
    assert round(packed / linear, 3) == 0.516
    adapted = LoraConfig(quantization=Quantization.nf4)
    four, sixteen = (training_memory(LLAMA3_8B, replace(PAPER, lora=lora), 1, 1000) for lora in (adapted, LoraConfig()))
    assert sixteen.weights - four.weights == 2 * linear - packed
    assert four.gathered == 14336 * 4096 * 2  # a map at work in bfloat16
    # The one layer that has been computed again keeps the gate's activation and the product too.
    assert four.activations - sixteen.activations == 1000 * 2 * 14336 * 2
    changed = {name: getattr(four, name) for name in ("weights", "gathered", "activations", "logits")}
    assert four == replace(sixteen, **changed, loading=four.weights)
    whole, packed_too = (
        frozen_memory(LLAMA3_8B, Precision.bf16, 1000, quantization=quantization, processes=8, card=10**9)
        for quantization in (None, Quantization.nf4)
    )
    assert packed_too - four.gathered == packed + 2 * rest + 1000 * (2 * 4096 * 2 + 32064 * (2 + 4 + 4))
    assert whole < packed_too  # which no card shares with others


def test_experts_by_hand() -> None:
    """No linear maps, so not in 4 bits; a token is in two of eight, beside whose numbers it is copied for each."""
    shape = replace(LLAMA3_8B, experts=8, chosen=2, plain_mlp=True, vocab=1000)
    attention, expert = 2 * 4096 * 4096 + 2 * 4096 * 1024, 3 * 4096 * 14336
    assert shape.layer == attention + 8 * expert + 4096 * 8 + 2 * 4096
    assert (shape.maps, shape.largest_map) == (attention, 4096 * 4096)
    linear = 32 * attention
    in_4_bits = linear // 2 + linear // 64 + linear // (64 * 256) * 4
    assert weight_bytes(shape, 2, Quantization.nf4) == in_4_bits + 2 * (shape.parameters - linear)
    # ZeRO 3 loads gate and up of all experts at once.
    shard = -(-2 * shape.parameters // 8)
    assert training_memory(shape, PAPER, 8, 1000).loading == shard + 8 * 2 * 14336 * 4096 * 2
    added = 4096 + 2 * (3 * 14336 + 2 * 4096)
    kept = 4 * 4096 + 2 * 4096 + 2 * 1024 + 2 * (4 * 14336 + 2 * 4096)
    assert activation_bytes(shape, 1000, 2, 0) == 1000 * 2 * (32 * kept + added)


def test_disk_by_hand() -> None:
    data = DataSize(sets=1000, responses=4, prompt_tokens=10, response_tokens=20)
    disk = run_disk(
        LLAMA3_8B,
        PAPER,
        data,
        processes=8,
        rounds=3,
        keeps_states=False,
        needs_reference=True,
        downloads_model=True,
        downloads_data=False,
    )
    assert disk.tokens == 3 * 90_000 * 4 and disk.reference == 3 * 80_000 * 4
    assert disk.checkpoints == 3 * 12 * P and disk.export == 3 * 2 * P and disk.download == 2 * P
    parts = (disk.tokens, disk.reference, disk.texts, disk.checkpoints, disk.export, disk.download)
    assert disk.cache + disk.download == sum(parts)
    free = run_disk(
        LLAMA3_8B,
        PAPER,
        data,
        processes=8,
        rounds=1,
        keeps_states=False,
        needs_reference=False,
        downloads_model=False,
        downloads_data=True,
    )
    assert free.reference == 0 and free.download == 90_000 * 5
    best = run_disk(
        LLAMA3_8B,
        replace(PAPER, keep_best="heldout/loss"),
        data,
        processes=8,
        rounds=2,
        keeps_states=True,
        needs_reference=False,
        downloads_model=False,
        downloads_data=True,
    )
    assert best.checkpoints == (3 + 4 + 1) * 12 * P


def test_a_checkpoint_is_as_large_as_the_states_it_holds(tmp_path: Path) -> None:
    assert checkpoint_bytes(LLAMA3_8B, TESTBED, 8) == 12 * P
    assert checkpoint_bytes(LLAMA3_8B, replace(TESTBED, zero_stage=1), 8) == 16 * P
    assert checkpoint_bytes(LLAMA3_8B, PAPER, 8) == 12 * P and checkpoint_bytes(LLAMA3_8B, PAPER, 1) == 14 * P
    assert checkpoint_bytes(LLAMA3_8B, replace(PAPER, lora=LoraConfig()), 8) < P
    config = LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    estimate = export_bytes(read_architecture(config.to_dict()), Precision.fp32)
    assert 1.0 <= (tmp_path / "model.safetensors").stat().st_size / estimate < 1.1


@pytest.mark.parametrize("scored", [None, 6_000])
def test_of_a_shared_row_a_process_has_its_tokens_and_for_a_moment_the_hidden_states_of_all(scored: int | None) -> None:
    two = replace(PAPER, sequence_parallel=2)
    alone = training_memory(LLAMA3_8B, PAPER, 8, 4_000, 500, scored=None if scored is None else scored // 2)
    shared = training_memory(LLAMA3_8B, two, 8, 8_000, 1_000, scored=scored)
    again = 1 if PAPER.settled.activation_checkpointing == 1 else LLAMA3_8B.layers
    assert shared.activations - alone.activations == again * 4_000 * 4096 * 2  # attention's output after the exchange
    assert shared.logits - alone.logits == 8_000 * 4096 * 2
    assert replace(shared, logits=alone.logits, activations=alone.activations) == alone


def test_processes_that_share_a_head_of_keys_each_have_it() -> None:
    many = replace(PAPER, sequence_parallel=16)
    alone, shared = training_memory(LLAMA3_8B, PAPER, 16, 1_000), training_memory(LLAMA3_8B, many, 16, 16_000)
    kept = 1 if PAPER.settled.activation_checkpointing == 1 else LLAMA3_8B.layers  # a layer that is computed again
    assert shared.activations - alone.activations == kept * 1_000 * (2 * 8 * 128 + 4096) * 2
