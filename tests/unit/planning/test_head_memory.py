"""What the head and DeepSpeed's buffers take: by hand, and the bounds that the head has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mpo.config.training import LoraConfig, Precision
from mpo.layout.shape_buckets import ROWS as ROWS_OF_THE_HEAD
from mpo.planning.activations import (
    LOGITS_AT_ONCE,
    ROWS,
    VOCABULARY_AT_ONCE,
    head_bytes,
)
from mpo.planning.buckets import bucket_elements
from mpo.planning.data_size import DataSize
from mpo.planning.memory import (
    scored_at_once,
    training_memory,
)
from mpo.policy.head import LOGITS_AT_ONCE as LOGITS_OF_THE_HEAD
from mpo.policy.head import VOCABULARY_AT_ONCE as VOCABULARY_OF_THE_HEAD
from mpo.train.zero import deepspeed_config
from tests.unit.planning.shapes import BACKWARDS, COPIED_GRADIENT, LLAMA3_8B, PAPER, TESTBED, WEIGHTS_GRADIENT, P


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
