"""Memory that comes and goes with a micro-batch: activations, a shared prompt's keys and values, the head's logits.

Activations follow the bookkeeping of arXiv 2205.05198, section 4, for a gated MLP and attention that stores no score
matrix. What a layer and the head add while they go backwards is what PyTorch's MemTracker counted on CUDA devices
without values, of layers of Llama's kind; others' MLPs are taken to do the same.
"""

from __future__ import annotations

from mpo.planning.sizes import Architecture

LOGITS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 27}
"""Most logits (positions × vocabulary) that the head computes at once, by device, as mpo.policy.head has it."""
VOCABULARY_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 15}
"""Most entries of the vocabulary in a block of logits, the same way."""
ROWS = 64
"""What positions of a block are multiples of, where there are more."""


def activation_bytes(shape: Architecture, tokens: int, width: int, checkpointing: int) -> int:
    """Activations of ``tokens`` tokens, ``width`` bytes an element: those kept for the backward pass, and what the
    layer that goes backwards adds to them.

    Where every n-th layer is checkpointed (n = ``checkpointing``, 0: none) these keep their input alone.
    """
    again = shape.recomputed(checkpointing)
    kept = again * shape.hidden * width + (shape.layers - again) * shape.kept_bytes(width)
    return tokens * kept + working_bytes(shape, tokens, width, checkpointing)


def working_bytes(shape: Architecture, tokens: int, width: int, checkpointing: int) -> int:
    """What a layer adds while its MLP goes backwards: the gradients of its output and product, the product of that
    gradient and up, the gradient of gate; with checkpointing also what it keeps after it was computed again."""
    again = shape.kept_bytes(width) - shape.hidden * width if shape.recomputed(checkpointing) else 0
    return tokens * (again + (shape.hidden + shape.mlp) * width)


def exchanged_bytes(shape: Architecture, tokens: int, width: int, checkpointing: int) -> int:
    """Attention's output once more, where processes share a row: all heads of a process's tokens, beside some heads of
    all tokens, in layers without checkpointing and in the one at work."""
    layers = shape.layers - shape.recomputed(checkpointing) + (1 if checkpointing else 0)
    return tokens * layers * shape.heads * shape.head_dim * width


def forward_bytes(shape: Architecture, tokens: int, width: int, device: str, row: int = 0) -> int:
    """Of a pass without gradient: a layer's MLP with what is added to its output, or a block of logits, whichever is
    larger.

    Args:
        row: tokens of a row that this process shares with others, of all of which it then has the hidden states.
    """
    layer = tokens * (4 * shape.hidden + shape.mlp) * width
    head = (2 * tokens + row) * shape.hidden * width + _logit_bytes(shape, tokens, width, device)
    return max(layer, head)


def shared_prompt_bytes(shape: Architecture, tokens: int, width: int, checkpointing: int) -> int:
    """A prompt's keys and values, kept for all pieces of a set, with their gradient in float32.

    In layers without checkpointing the piece at work has a copy of them beside its own.
    """
    copied = shape.layers - shape.recomputed(checkpointing)
    return tokens * 2 * shape.kv_heads * shape.head_dim * (shape.layers * (width + 4) + copied * width)


def head_bytes(
    shape: Architecture,
    tokens: int,
    scored: int,
    width: int,
    device: str,
    own_gradient: bool,
    working: int,
    row: int = 0,
) -> int:
    """What the head, going backwards, takes beyond the ``working`` bytes of a layer, which does so after it.

    Hidden states after the last layer and at the ``scored`` positions and their gradient in float32; a block of logits;
    and with ``own_gradient`` that of the weights, in their precision, and of some entries while it is summed in
    float32. In bfloat16 DeepSpeed then makes a float32 copy of it all, to add it to the sum over micro-batches and to
    send it: the logits are gone by then, but all activations are still there. Where the embedding shares the weights,
    their gradient waits for it, and is copied when the activations are gone too.

    Args:
        row: tokens of a row that this process shares with others, of all of which it then has the hidden states.
    """
    hidden, (entries, positions) = shape.hidden, _block(shape, scored, device)
    states = ((tokens + row) * width + scored * (width + 4)) * hidden
    computing = positions * width * hidden + _logit_bytes(shape, scored, width, device)
    added = waiting = 0
    if own_gradient:
        gradient = shape.embedding * width
        # A product in bfloat16 is added to the sum afterwards.
        computing += gradient + entries * hidden * (4 if width == 4 else 4 + width)
        if shape.tied:
            waiting = gradient
        else:
            added = gradient + (0 if width == 4 else shape.embedding * 4)
    return max(states + max(computing, added) - working, waiting)


def _logit_bytes(shape: Architecture, tokens: int, width: int, device: str) -> int:
    """A block of logits and of its softmax, both in float32, and the latter in the weights' precision."""
    entries, positions = _block(shape, tokens, device)
    return entries * positions * (4 + 4 + (0 if width == 4 else width))


def _block(shape: Architecture, tokens: int, device: str) -> tuple[int, int]:
    """Entries of the vocabulary and positions of a block of logits, as mpo.policy.head has them."""
    blocks = -(-shape.vocab // VOCABULARY_AT_ONCE[device])
    entries = -(-shape.vocab // blocks)
    rows = max(1, LOGITS_AT_ONCE[device] // entries)
    return entries, min(tokens, max(rows - rows % ROWS, rows % ROWS))
