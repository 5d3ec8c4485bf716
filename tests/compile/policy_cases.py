"""Whole policies on a card in name only: forward and backward, what is compiled for them, and what memory they take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch._dynamo.utils import counters
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig, AutoModelForCausalLM

from mpo.config.training import LoraConfig
from mpo.layout.batch import TokenBatch, collate
from mpo.policy import attention
from mpo.policy.head import ChunkedHead
from mpo.policy.load import make_policy
from mpo.policy.module import PolicyModule
from mpo.policy.sequence_parallel import SequenceShares
from tests.compile.attention_cases import Compiled, Lengths, laid_out, token_sets
from tests.compile.fake_card import compiled_kernels
from tests.compile.fake_tensors import DEVICE, Memory, fake_tensors, plain_fake_tensors
from tests.families import in_pieces

SHAPES: dict[str, dict[str, Any]] = {
    "1B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "14B": {
        "model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48,
        "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Of Llama 3.2 1B, Llama 3 8B and Qwen 2.5 14B."""
SMALL = SHAPES["8B"] | {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
                        "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 1000}  # fmt: skip


def new_policy(
    shape: dict[str, Any], checkpointing: bool, compile: bool = False, lora: LoraConfig | None = None
) -> PolicyModule:
    """A policy in bfloat16 on the card, ready to be trained; with fake tensors about."""
    # Adapters are made on the card, where peft would move them by swapping tensors, which fake ones do not let it do.
    stay = patch.object(nn.Module, "to", lambda module, *_, **__: module) if lora is not None else nullcontext()
    with DEVICE, stay:
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape), dtype=torch.bfloat16)
        lm.set_attn_implementation(attention.NAME)
        policy = make_policy(lm.train(), checkpointing, lora, compile=compile).train()
    saving = [module for module in policy.modules() if isinstance(vars(module).get("forward"), partial)]
    assert policy.shares_prefix and saving
    for module in policy.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dtype != torch.bfloat16:  # adapters, which DeepSpeed casts
                setattr(module, name, nn.Parameter(parameter.detach().to(torch.bfloat16)))
    for parameter in policy.parameters():  # in training a gradient is added to its sum, and gone, once it is there
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_let_go)
    return policy


def _let_go(parameter: Tensor) -> None:
    assert parameter.grad is not None and parameter.grad.shape == parameter.shape
    parameter.grad.float()  # as DeepSpeed has it in bfloat16, to add it to the sum
    parameter.grad = None


def train(policy: PolicyModule, batch: TokenBatch) -> None:
    """Forward and backward of a micro-batch; with fake tensors about."""
    logps = policy(batch.to(DEVICE))
    assert logps.token_logps_BKT.dtype == torch.float32 and logps.token_logps_BKT.device == DEVICE
    logps.token_logps_BKT.sum().backward()


def layer(checkpointing: bool, compile: bool) -> Compiled:
    """What one layer of 8B dimensions, embedding and head make torch compile."""
    began, before = time.perf_counter(), counters["stats"]["unique_graphs"]
    compiled_kernels()
    batch = laid_out([(180, [280] * 4), (700, [90, 3, 500])])
    with fake_tensors():
        train(new_policy(SHAPES["8B"] | {"num_hidden_layers": 1}, checkpointing, compile), batch)
    return Compiled(counters["stats"]["unique_graphs"] - before, compiled_kernels(), time.perf_counter() - began)


def graphs_of(batches: Sequence[Lengths], pieces: bool) -> list[int]:
    """New graphs of each batch, in order: of whole sets, or of the first half of a set's responses and the others."""
    found = []
    with fake_tensors():
        policy = new_policy(SMALL, checkpointing=False, compile=True)
    for lengths in batches:
        before = counters["stats"]["unique_graphs"]
        sets = token_sets(lengths)
        with fake_tensors():
            if pieces:
                responses = range(len(sets[0].response_ids))
                half = -(-len(responses) // 2)
                in_pieces(policy, sets[0], [(0, list(part)) for part in (responses[:half], responses[half:]) if part])
            else:
                train(policy, collate(sets))
        found.append(counters["stats"]["unique_graphs"] - before)
    return found


def head(options: dict[str, Any]) -> list[str]:
    """Run the head forwards and backwards where nothing has a value: whatever would wait for the card raises.

    Returns the types of its outputs and gradients.
    """
    positions, vocabulary = 9000, SHAPES["8B"]["vocab_size"]
    with plain_fake_tensors(), DEVICE:
        linear = nn.Linear(4096, vocabulary, bias=options.pop("bias", False), dtype=torch.bfloat16)
        chunked = ChunkedHead(linear, options.pop("scale", 1.0), options.pop("softcap", None))
        chunked.wants_square_sums = options.pop("square_sums", False)
        assert not options
        hidden_ND = torch.empty(positions, 4096, dtype=torch.bfloat16, requires_grad=True)
        targets_N = torch.empty(positions, dtype=torch.long)
        first = chunked(hidden_ND, targets_N)
        second = chunked(hidden_ND, targets_N, first.normalisers_WN)
        for found in (first, second):
            assert found.logps_N.shape == (positions,)
            found.logps_N.sum().backward()
        tensors = [*first, hidden_ND.grad, *(parameter.grad for parameter in chunked.parameters())]
        return [f"{tuple(t.shape)} {t.dtype} {t.device}" for t in tensors if t is not None]


@dataclass(frozen=True)
class Peak:
    """Bytes beyond weights: after the forward pass, and the most until the backward pass is over."""

    kept: int
    most: int
    tokens: int
    scored: int


@contextmanager
def first_of(processes: int) -> Iterator[SequenceShares]:
    """The place of the first of so many processes that share rows, whose exchanges bring nothing."""
    from mpo.train.zero import deepspeed, sequence_shares  # not in processes that never use it

    dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    deepspeed.init_distributed(verbose=False)
    try:
        yield sequence_shares(processes)
    finally:
        dist.destroy_process_group()


def peak(
    shape: dict[str, Any], checkpointing: bool, lengths: Lengths, lora: LoraConfig | None = None, processes: int = 1
) -> Peak:
    """What a micro-batch takes while it is trained on, in the first of ``processes`` that share its row."""
    batch = laid_out(lengths)
    scored = int(batch.response_lengths_R.sum())
    place = nullcontext(SequenceShares()) if processes == 1 else first_of(processes)
    with place as sequence, fake_tensors():
        policy = new_policy(shape, checkpointing, lora=lora)
        policy.sequence = sequence
        train(policy, batch)  # compiles, of which the tracker of memory would see too much
        memory = Memory()
        memory.track_external(policy)
        weights = memory.now
        there = batch.to(DEVICE)
        with memory:
            logps = policy(there).token_logps_BKT
            kept = memory.now
            logps.sum().backward()
    return Peak(kept - weights, memory.peak - weights, batch.tokens, scored)
