"""Memory of a process: the terms by hand, and what must order them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mpo.config.schema import LauncherConfig, RunConfig
from mpo.config.training import LoraConfig, Offload, Precision, Quantization
from mpo.planning.activations import (
    activation_bytes,
)
from mpo.planning.forecast import planned_device
from mpo.planning.memory import (
    LIBRARIES,
    effective_stage,
    frozen_memory,
    micro_batch_tokens,
    stages,
    training_memory,
    weight_bytes,
)
from tests.unit.planning.shapes import BACKWARDS, COPIED_GRADIENT, EVERY_LAYER, LLAMA3_8B, PAPER, TESTBED, P


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
