"""Arithmetic of one optimizer step, and the seconds that a measured machine needs for it.

Products of matrices are counted as in arXiv 2204.02311, appendix B: 2 FLOPs a parameter and token forwards, twice that
backwards; attention is counted over the pairs of tokens that see each other. Everything else of a layer reads and
writes memory: it is counted in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpo.config.training import Precision, TrainConfig
from mpo.planning.data_size import DataSize
from mpo.planning.machine import Machine
from mpo.planning.sizes import Architecture, adapter_parameters

PASSES = 6
"""Times that a kept activation is read or written: made and read forwards, read backwards, gradient made and read."""
LOGIT_PASSES = 10
"""The same for a logit, which the head computes twice: forwards, and again for its gradient."""
OPTIMIZER_PASSES = 7
"""AdamW reads weight, gradient and two moments, and writes all but the gradient."""


@dataclass(frozen=True)
class Work:
    """What one process does in an optimizer step: FLOPs in products, bytes in everything else."""

    flops: float
    traffic: float

    def seconds(self, machine: Machine) -> float:
        """On ``machine``, where products and passes over memory follow each other."""
        return self.flops / machine.flops_per_second + self.traffic / machine.bytes_per_second


def forward_flops(shape: Architecture, data: DataSize) -> float:
    """FLOPs of a reference's pass: all sets forwards, each prompt once, with the log-probs of their responses."""
    layers, head = _set_flops(shape, data)
    return data.sets * (layers + head)


def step_work(shape: Architecture, train: TrainConfig, data: DataSize, processes: int) -> Work:
    """The work of one process, of ``processes`` of the whole group, for its share of a global batch."""
    sets = min(train.global_batch, data.sets) / processes
    prompt, response, count = data.prompt_tokens, data.response_tokens, data.responses
    tokens, responses = prompt + count * response, count * response
    layers, head = _set_flops(shape, data)
    once_more = _forwarded_again(train, tokens)
    forwards = 1.0 + shape.recomputed(train.settled.activation_checkpointing) / shape.layers + once_more
    backward = 2.0 if train.lora is None else 1.0  # of a frozen matrix only its input's gradient is computed
    width = 2 if train.precision is Precision.bf16 else 4
    trained = shape.parameters if train.lora is None else adapter_parameters(shape, train.lora)
    passes = PASSES * (forwards + 2) / 3
    traffic = shape.layers * tokens * shape.activations * width * passes + responses * shape.vocab * 4 * LOGIT_PASSES
    share = processes if train.settled.zero_stage >= 1 or train.precision is Precision.bf16 else 1
    return Work(
        flops=sets * (layers * (forwards + backward) + head * (2.0 + backward)),
        traffic=sets * traffic + OPTIMIZER_PASSES * 4 * trained / share,
    )


def _set_flops(shape: Architecture, data: DataSize) -> tuple[float, float]:
    """FLOPs of one set forwards: of all layers, and of the head, which sees responses alone."""
    prompt, response, count = data.prompt_tokens, data.response_tokens, data.responses
    matrices = shape.layers * shape.used_matrices
    pairs = prompt**2 / 2 + count * (response * prompt + response**2 / 2)
    layers = 2 * (prompt + count * response) * matrices + 4 * shape.heads * shape.head_dim * pairs * shape.layers
    return layers, 2 * count * response * shape.embedding


def _forwarded_again(train: TrainConfig, tokens: int) -> float:
    """Share of a set that is forwarded once more: of one above the token budget all its pieces but one."""
    return max(0.0, 1.0 - train.settled.row_tokens / tokens)
