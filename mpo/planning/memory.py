"""Memory of one process in training: a sum of terms that can each be checked by hand.

Model states follow ZeRO (arXiv 1910.02054, section 3): with N processes a stage shares out the optimizer's state (1),
the gradients too (2), the weights too (3). Bytes a parameter: in bf16 2 for the weight, 4 for its gradient (summed in
float32), 12 for master weight and Adam's two moments; in fp32 4, 4 and 8, from stage 1 on 12 as well, because DeepSpeed
keeps weights of its own there. Activations follow the bookkeeping of arXiv 2205.05198, section 4, for a gated MLP and
attention that stores no score matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpo.config.schema import Offload, Precision, TrainConfig
from mpo.planning.sizes import Architecture, DataSize, adapter_parameters

LOGITS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Most logits (positions × vocabulary) that the head computes at once, by device, as mpo.policy.head has it."""
VOCABULARY_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 15}
"""Most entries of the vocabulary whose gradient the head sums in float32 at once, the same way."""
OUTPUTS_KEPT = {Precision.fp32: 8, Precision.bf16: 16}
"""Token budgets, of whose tokens attention's outputs are kept where a set is above one, as mpo.train.window has it."""
LIBRARIES = {"cpu": 480 * 2**20, "cuda": 0}
"""What a process that trains next to nothing has resident: the interpreter, PyTorch, transformers and DeepSpeed, and
their memory for exporting the model. On CUDA only what lies on the card counts."""
LOGIT_BYTES = 3 * 4
"""The value, its probability and what that is multiplied as, in float32."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, by what they hold.

    ``host`` is CPU memory that offloading takes instead, and a checkpoint that is being written beside the training;
    where there is no card that is ``checkpoint``. ``loading``: before training every process holds all weights,
    in host memory and then on its device, whatever is shared out afterwards.
    """

    stage: int
    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int
    host: int
    checkpoint: int
    loading: int
    libraries: int

    @property
    def device(self) -> int:
        """Bytes on the device: on the card, or resident where there is none."""
        states = self.weights + self.gradients + self.optimizer + self.gathered
        return states + self.activations + self.logits + self.checkpoint + self.libraries


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
) -> Memory:
    """Estimated peak of one process while it trains.

    Args:
        processes: of the whole group, all nodes.
        tokens: forwarded at once by the process, see :func:`micro_batch_tokens`.
        prompt: tokens that pieces of a set share, see :func:`shared_prompt_tokens`.
        outputs: tokens of which attention's outputs are kept, see :func:`kept_output_tokens`.
        stage: another ZeRO stage than the configured one.
        device: what it trains on, ``cpu`` or ``cuda``.
    """
    settings = train.settled
    stage = effective_stage(train, settings.zero_stage if stage is None else stage, processes)
    width = 2 if train.precision is Precision.bf16 else 4
    states = 12 if train.precision is Precision.bf16 or stage >= 1 else 8  # ZeRO keeps weights of its own
    trained = shape.parameters if train.lora is None else adapter_parameters(shape, train.lora)
    frozen = 0 if train.lora is None else shape.parameters
    weights = (trained + frozen) * width
    gradients = trained * 4
    optimizer = trained * states
    if stage >= 1:
        optimizer = -(-optimizer // processes)
    if stage >= 2:
        gradients = -(-gradients // processes)
    gathered = 0
    if stage == 3:
        weights = -(-weights // processes)
        # The layer at work and the one prefetched, or the embedding, whichever is larger.
        gathered = max(2 * shape.layer, shape.embedding) * width
    loading = (trained + frozen) * width
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
    return Memory(
        stage=stage,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        gathered=gathered,
        activations=activation_bytes(shape, tokens, width, settings.activation_checkpointing)
        + shared_prompt_bytes(shape, prompt, width, settings.activation_checkpointing)
        + outputs * shape.layers * shape.heads * shape.head_dim * width,
        logits=head_bytes(shape, tokens, train.precision, device, train.lora is None and not in_place),
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
) -> list[Memory]:
    """:func:`training_memory` of every ZeRO stage that runs in the configured precision, in order."""
    running = sorted({effective_stage(train, stage, processes) for stage in range(4)})
    return [training_memory(shape, train, processes, tokens, prompt, outputs, stage, device) for stage in running]


def reference_memory(shape: Architecture, precision: Precision, tokens: int, device: str = "cuda") -> int:
    """Bytes of the pass that computes reference log-probs: all weights, one layer's activations, some logits."""
    width = 2 if precision is Precision.bf16 else 4
    computed = _layer_bytes(shape, tokens, width) + _logit_bytes(shape, tokens, device)
    return LIBRARIES[device] + shape.parameters * width + computed


def activation_bytes(shape: Architecture, tokens: int, width: int, checkpointing: int) -> int:
    """Activations kept for the backward pass of ``tokens`` tokens, ``width`` bytes an element.

    Where every n-th layer is checkpointed (n = ``checkpointing``, 0: none) these keep their input alone, and one at a
    time is computed again; without any, one layer's product of gate and up is.
    """
    again = shape.recomputed(checkpointing)
    at_work = shape.activations if again else shape.intermediate
    return tokens * (again * shape.hidden + (shape.layers - again) * shape.kept_activations + at_work) * width


def shared_prompt_bytes(shape: Architecture, tokens: int, width: int, checkpointing: int) -> int:
    """A prompt's keys and values, kept for all pieces of a set, with their gradient in float32.

    In layers without checkpointing the piece at work has a copy of them beside its own.
    """
    copied = shape.layers - shape.recomputed(checkpointing)
    return tokens * 2 * shape.kv_heads * shape.head_dim * (shape.layers * (width + 4) + copied * width)


def head_bytes(shape: Architecture, tokens: int, precision: Precision, device: str, own_gradient: bool) -> int:
    """Logits, and gradients of hidden states and weights, as the head's backward pass has them (mpo.policy.head).

    The gradient of hidden states is summed in float32. That of the weights, where it is the head's own, is in their
    precision, and in float32 for the block of the vocabulary that is being summed. In bfloat16 DeepSpeed then makes a
    float32 copy of it all, to add it to the sum over micro-batches and to send it; the logits are gone by then. It is
    the largest such copy, and the first: all activations are still there.
    """
    computing, added = _logit_bytes(shape, tokens, device), 0
    if own_gradient:
        narrow = precision is Precision.bf16
        gradient = shape.embedding * (2 if narrow else 4)
        computing += gradient + min(shape.vocab, VOCABULARY_AT_ONCE[device]) * shape.hidden * 4
        added = gradient + (shape.embedding * 4 if narrow else 0)
    return tokens * shape.hidden * 4 + max(computing, added)


def _logit_bytes(shape: Architecture, tokens: int, device: str) -> int:
    return min(tokens * shape.vocab, max(LOGITS_AT_ONCE[device], shape.vocab)) * LOGIT_BYTES


def _layer_bytes(shape: Architecture, tokens: int, width: int) -> int:
    return tokens * shape.activations * width


def tokens_at_once(train: TrainConfig, sets: DataSize, device: str = "cuda") -> tuple[int, int, int]:
    """What :func:`training_memory` takes for training on such sets: ``tokens``, ``prompt`` and ``outputs``."""
    lengths = (sets.prompt_tokens, sets.response_tokens, sets.responses)
    return (
        micro_batch_tokens(train, *lengths),
        shared_prompt_tokens(train, *lengths),
        kept_output_tokens(train, *lengths) if device == "cpu" else 0,
    )


def micro_batch_tokens(train: TrainConfig, prompt_tokens: int, response_tokens: int, responses: int) -> int:
    """Tokens that a process forwards at once: sets with their prompt once, within the budget; at least one response."""
    wanted = train.micro_batch * (prompt_tokens + responses * response_tokens)
    return max(min(wanted, train.settled.micro_tokens), prompt_tokens + response_tokens)


def kept_output_tokens(train: TrainConfig, prompt_tokens: int, response_tokens: int, responses: int) -> int:
    """Tokens of a set in pieces of which attention's outputs are kept for the second forward pass, on a CPU.

    As :mod:`mpo.train.window` has it.
    """
    tokens, budget = prompt_tokens + responses * response_tokens, train.settled.micro_tokens
    return 0 if tokens <= budget else min(tokens, OUTPUTS_KEPT[train.precision] * budget)


def shared_prompt_tokens(train: TrainConfig, prompt_tokens: int, response_tokens: int, responses: int) -> int:
    """Tokens of a prompt that is kept for the pieces of its set; 0 where sets are within the budget."""
    return prompt_tokens if prompt_tokens + responses * response_tokens > train.settled.micro_tokens else 0
