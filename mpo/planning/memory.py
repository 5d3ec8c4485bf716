"""Memory of one process in training: a sum of terms that can each be checked by hand.

Model states follow ZeRO (arXiv 1910.02054, section 3): with N processes a stage shares out the optimizer's state (1),
the gradients too (2), the weights too (3). Bytes a parameter: in bf16 2 for the weight, 4 for its gradient (summed in
float32), 12 for master weight and Adam's two moments; in fp32 4, 4 and 8, from stage 1 on 12 as well, because DeepSpeed
keeps weights of its own there. What comes and goes with a micro-batch: :mod:`mpo.planning.activations`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mpo.config.training import Offload, Precision, Quantization, TrainConfig
from mpo.planning.activations import (
    activation_bytes,
    exchanged_bytes,
    forward_bytes,
    head_bytes,
    shared_prompt_bytes,
    working_bytes,
)
from mpo.planning.buckets import bucket_bytes
from mpo.planning.data_size import DataSize
from mpo.planning.sizes import Architecture, adapter_parameters

OUTPUTS_KEPT = {Precision.fp32: 8, Precision.bf16: 16}
"""Token budgets, of whose tokens attention's outputs are kept where a set is above one, as mpo.train.window has it."""
LIBRARIES = {"cpu": 525 * 2**20, "cuda": 0}
"""What a process that trains next to nothing has resident: the interpreter, PyTorch, transformers and DeepSpeed, and
their memory for exporting the model. 45 MiB of it are bitsandbytes, which peft imports wherever it is installed, and
transformers peft. On CUDA only what lies on the card counts."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight in 4 bits: the constant of 64 of them is a byte, and 256 of these share one in float32."""
WHOLE = 0.6
"""Share of a card's memory that a frozen policy's weights may take for each process to hold a whole copy
(:mod:`mpo.train.sharding`); the rest is for activations."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, by what they hold.

    Attributes:
        gathered: weights that are whole only while they are at work: of layers that ZeRO 3 has in shards, or of a
            linear map in 4 bits.
        logits: what the head takes beyond what a layer does, which goes backwards when the head is done.
        buckets: DeepSpeed's buffer for gradients to be reduced, and what reducing them takes beyond ``logits``.
        host: CPU memory that offloading takes instead, and the copy of a checkpoint that is being written beside the
            training; where there is no card that is ``checkpoint``.
        loading: on the device before training: all weights, or with ZeRO 3, which spreads one parameter after the
            other, a shard and the largest parameter. The host has one copy for all processes, its files' pages.
    """

    stage: int
    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int
    buckets: int
    host: int
    checkpoint: int
    loading: int
    libraries: int

    @property
    def device(self) -> int:
        """Bytes on the device: on the card, or resident where there is none."""
        states = self.weights + self.gradients + self.optimizer + self.gathered
        return states + self.activations + self.logits + self.buckets + self.checkpoint + self.libraries


def effective_stage(train: TrainConfig, stage: int, processes: int) -> int:
    """The ZeRO stage that runs for ``stage``.

    In bf16 stage 0 runs as 1, because DeepSpeed sums gradients in float32 only from there on, and as 2 where something
    is offloaded. A process alone runs the lowest of these, unless its weights are offloaded: there is nobody to share
    with, gathering weights module by module costs milliseconds a module, and stage 2 makes its sums anew in every step.
    The arithmetic of an update is the same in all of them.
    """
    if train.precision is not Precision.bf16:
        return stage
    offload = train.settled.offload
    lowest = 1 if offload is Offload.none else 2
    shared = processes > 1 or offload is Offload.parameters
    return max(stage, lowest) if shared else lowest


def training_memory(
    shape: Architecture,
    train: TrainConfig,
    processes: int,
    tokens: int,
    prompt: int = 0,
    outputs: int = 0,
    stage: int | None = None,
    device: str = "cuda",
    scored: int | None = None,
    nodes: int = 1,
) -> Memory:
    """Estimated peak of one process while it trains.

    Args:
        processes: of the whole group, all nodes.
        tokens: of a micro-batch, see :func:`micro_batch_tokens`; this and the next two are of one that with
            ``train.sequence_parallel`` several processes share.
        prompt: tokens that pieces of a set share, see :func:`shared_prompt_tokens`.
        outputs: tokens of which attention's outputs are kept, see :func:`kept_output_tokens`.
        stage: another ZeRO stage than the configured one.
        device: what it trains on, ``cpu`` or ``cuda``.
        scored: those of ``tokens`` that are of responses, see :func:`scored_at_once`; default: all.
        nodes: machines that the processes run on, as many on each.
    """
    settings = train.settled
    stage = effective_stage(train, settings.zero_stage if stage is None else stage, processes)
    width = 2 if train.precision is Precision.bf16 else 4
    states = 12 if train.precision is Precision.bf16 or stage >= 1 else 8  # ZeRO keeps weights of its own
    trained = shape.parameters if train.lora is None else adapter_parameters(shape, train.lora)
    weights = trained * width
    if train.lora is not None:
        weights += weight_bytes(shape, width, train.lora.quantization)
    gradients = trained * 4
    optimizer = trained * states
    if stage >= 1:
        optimizer = -(-optimizer // processes)
    if stage >= 2:
        gradients = -(-gradients // processes)
    in_4_bits = train.lora is not None and train.lora.quantization is not None
    gathered = shape.largest_map * width if in_4_bits else 0
    loading = whole = weights
    if stage == 3:
        weights = -(-whole // processes)
        gathered = _gathered_bytes(shape, width)
        on_device = 0 if settings.offload is Offload.parameters else weights
        loading = on_device + max(shape.embedding, shape.largest_tensor) * width
        if train.zero_hpz:  # the second copy, in shards within a machine
            weights += -(-whole * nodes // processes)
    # Copied by the first process, which has the most: below stage 3 the weights too, beside its part of the optimizer.
    copied = (0 if stage == 3 else trained * width) + optimizer if train.checkpoint_async else 0
    # A process alone on a CPU adds the gradients of embedding and head to their float32 sum in place.
    lowest = 1 if train.precision is Precision.bf16 else 0
    in_place = device == "cpu" and processes == 1 and stage == lowest
    host = 0
    if settings.offload is not Offload.none and stage >= 1:
        # Below stage 3 gradients are summed on the device and copied; there they are summed and copied on the host.
        host, optimizer = optimizer + gradients, 0
        if stage == 3:
            host, gradients = host + gradients, 0
        if settings.offload is Offload.parameters and stage == 3:
            host, weights = host + weights, 0
    if device == "cuda":
        host, copied = host + copied, 0
    checkpointing, together = settings.activation_checkpointing, settings.sequence_parallel
    row, scored = tokens if together > 1 else 0, tokens if scored is None else scored
    # Processes that share a row have all its tokens for some heads, of which two may have the same of the keys'.
    # MLPs of maps in 4 bits are left to autograd (mpo.policy.layers).
    plain_mlp = shape.plain_mlp or in_4_bits
    busy = replace(shape, kv_heads=math.lcm(shape.kv_heads, together), plain_mlp=plain_mlp)
    tokens, scored, prompt, outputs = (-(-count // together) for count in (tokens, scored, prompt, outputs))
    working = working_bytes(busy, tokens, width, checkpointing)
    own_gradient = train.lora is None and not in_place
    activations = activation_bytes(busy, tokens, width, checkpointing)
    activations += exchanged_bytes(shape, tokens, width, checkpointing) if together > 1 else 0
    activations += shared_prompt_bytes(busy, prompt, width, checkpointing)
    activations += outputs * shape.layers * shape.heads * shape.head_dim * width
    logits = head_bytes(shape, tokens, scored, width, device, own_gradient, working, row)
    return Memory(
        stage=stage,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        gathered=gathered,
        activations=activations,
        logits=logits,
        buckets=bucket_bytes(shape, train.precision, stage, processes, trained, activations, logits),
        host=host,
        checkpoint=copied,
        loading=loading,
        libraries=LIBRARIES[device],
    )


def stages(
    shape: Architecture,
    train: TrainConfig,
    processes: int,
    tokens: int,
    prompt: int = 0,
    outputs: int = 0,
    device: str = "cuda",
    scored: int | None = None,
    nodes: int = 1,
) -> list[Memory]:
    """:func:`training_memory` of every ZeRO stage that runs in the configured precision, in order."""
    spreads = train.lora is None or train.lora.quantization is None  # ZeRO 3 has no weights in 4 bits
    running = sorted({effective_stage(train, stage, processes) for stage in range(4 if spreads else 3)})
    return [
        training_memory(shape, train, processes, tokens, prompt, outputs, stage, device, scored, nodes)
        for stage in running
    ]


def frozen_memory(
    shape: Architecture,
    precision: Precision,
    tokens: int,
    device: str = "cuda",
    quantization: Quantization | None = None,
    processes: int = 1,
    card: int | None = None,
    sequence_parallel: int = 1,
) -> int:
    """Bytes of a process that computes log-probs alone, the reference's or to evaluate a policy: its weights, and a
    layer or a block of logits.

    Args:
        quantization: that of the weights.
        processes: of the whole group: they share weights of which a card has no room for all.
        card: bytes of its memory; None: not known, each process is taken to hold them all.
        sequence_parallel: processes that share the ``tokens`` of a row.
    """
    width = 2 if precision is Precision.bf16 else 4
    weights = weight_bytes(shape, width, quantization)
    if quantization is not None:
        weights += shape.largest_map * width
    elif not held_whole(weights, device, quantization, processes, card):
        weights = -(-weights // processes) + _gathered_bytes(shape, width)
    row, tokens = tokens if sequence_parallel > 1 else 0, -(-tokens // sequence_parallel)
    return LIBRARIES[device] + weights + forward_bytes(shape, tokens, width, device, row)


def held_whole(weights: int, device: str, quantization: Quantization | None, processes: int, card: int | None) -> bool:
    """Whether each process holds a frozen policy's ``weights`` (bytes) whole, as :mod:`mpo.train.sharding` decides."""
    spreads = device == "cuda" and processes > 1 and quantization is None
    return not spreads or card is None or weights <= WHOLE * card


def weight_bytes(shape: Architecture, width: int, quantization: Quantization | None = None) -> int:
    """All weights: ``width`` bytes each, or with a quantization those of the layers' linear maps in 4 bits."""
    if quantization is None:
        return shape.parameters * width
    linear = shape.layers * shape.maps
    return math.ceil(linear * NF4) + (shape.parameters - linear) * width


def _gathered_bytes(shape: Architecture, width: int) -> int:
    """The layer at work and the one prefetched, or the embedding, whichever is larger."""
    return max(2 * shape.layer, shape.embedding) * width


def tokens_at_once(train: TrainConfig, sets: DataSize, device: str = "cuda") -> tuple[int, int, int]:
    """What :func:`training_memory` takes for training on such sets: ``tokens``, ``prompt`` and ``outputs``."""
    lengths = (sets.prompt_tokens, sets.response_tokens, sets.responses)
    return (
        micro_batch_tokens(train, *lengths),
        shared_prompt_tokens(train, *lengths),
        kept_output_tokens(train, *lengths) if device == "cpu" else 0,
    )


def scored_at_once(train: TrainConfig, sets: DataSize) -> int:
    """Tokens of responses among those of :func:`tokens_at_once`: the head computes logits for no others."""
    at_once = micro_batch_tokens(train, sets.prompt_tokens, sets.response_tokens, sets.responses)
    answers, budget = sets.responses * sets.response_tokens, train.settled.row_tokens
    if sets.prompt_tokens + answers > budget:  # the prompt is in the first piece alone
        return max(min(answers, budget), sets.response_tokens)
    return at_once * answers // (sets.prompt_tokens + answers)


def micro_batch_tokens(train: TrainConfig, prompt_tokens: int, response_tokens: int, responses: int) -> int:
    """Tokens that a process, or all of ``train.sequence_parallel`` together, forward at once: sets with their prompt
    once, within the budget; at least one response."""
    wanted = train.micro_batch * (prompt_tokens + responses * response_tokens)
    return max(min(wanted, train.settled.row_tokens), prompt_tokens + response_tokens)


def kept_output_tokens(train: TrainConfig, prompt_tokens: int, response_tokens: int, responses: int) -> int:
    """Tokens of a set in pieces of which attention's outputs are kept for the second forward pass, on a CPU.

    As :mod:`mpo.train.window` has it.
    """
    tokens, budget = prompt_tokens + responses * response_tokens, train.settled.row_tokens
    return 0 if tokens <= budget else min(tokens, OUTPUTS_KEPT[train.precision] * budget)


def shared_prompt_tokens(train: TrainConfig, prompt_tokens: int, response_tokens: int, responses: int) -> int:
    """Tokens of a prompt that is kept for the pieces of its set; 0 where sets are within the budget."""
    return prompt_tokens if prompt_tokens + responses * response_tokens > train.settled.row_tokens else 0
