"""Memory that DeepSpeed takes to reduce gradients: buffers in which it collects them, and their copies on the way.

As read in DeepSpeed 0.19.8 (``stage3.py``, ``stage_1_and_2.py``, ``engine.py`` of its runtime).
"""

from __future__ import annotations

from mpo.config.training import Precision
from mpo.planning.sizes import Architecture

MOST = 100_000_000
"""Most elements that are collected before they are reduced; a gradient with more of them is reduced by itself."""
AFTERWARDS = 500_000_000
"""Elements after which another bucket begins where gradients are reduced after a step's last backward pass (DeepSpeed's
``MEMORY_OPT_ALLREDUCE_SIZE``)."""


def bucket_elements(parameters: int) -> int:
    """Size of the buffer for a model of so many ``parameters``, frozen ones included."""
    return min(parameters, MOST)


def bucket_bytes(
    shape: Architecture,
    precision: Precision,
    stage: int,
    processes: int,
    trained: int,
    activations: int,
    logits: int,
) -> int:
    """Bytes of buffer and copies, as far as they are there when most memory is needed.

    Stage 3 keeps a buffer in float32. Stage 2 has one in the model's precision while it goes backwards, and so has
    stage 1 in float32. When it is full its parts are copied, in the order of the processes that they go to, and sent in
    float32; the head's gradient, which comes first, is counted with the head. In stage 0, and in 1 in bfloat16, nothing
    is collected: gradients are copied and reduced after the backward pass, when activations are gone.

    Args:
        stage: that runs.
        trained: parameters with a gradient.
        activations: bytes of a micro-batch, with ``logits`` for the head beyond them.
    """
    wide = precision is Precision.fp32
    if stage == 0 or (stage == 1 and not wide):
        together = min(trained, AFTERWARDS + max(shape.embedding, shape.largest_tensor))
        return max(0, 4 * together - activations - logits) if processes > 1 else 0
    elements, width = bucket_elements(shape.parameters), 4 if wide else 2
    buffer, sent = (4, 4) if stage == 3 else (width, width if wide else width + 4)
    reducing = elements * sent if trained > elements else 0  # else once, when the backward pass is over
    return elements * buffer + max(0, reducing - logits)
