"""Sizes of products that a CPU's library compiles code for."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = (64, 32)
"""Sizes of a row of tokens: at least this far apart, and at most this many from a power of two to the next."""
SPANS = (16, 4)
"""The same of what attention looks at together."""


def stepped(size: int, like: Tensor, steps: tuple[int, int]) -> int:
    """What a ``size`` that changes from one micro-batch to the next is rounded up to, for products of ``like``.

    oneDNN, which computes a CPU's products in bfloat16, compiles code for every new size, a millisecond and a megabyte
    each, and never frees it: with every micro-batch of another size training would grow by gigabytes. Elsewhere a size
    stays what it is.
    """
    if not few_sizes(like):
        return size
    least, most = steps
    step = max(least, power_of_two(size) // most)
    return -(-size // step) * step


def few_sizes(like: Tensor) -> bool:
    """Whether a product of ``like`` costs something for being of a new size."""
    return like.device.type == "cpu" and like.dtype == torch.bfloat16


def power_of_two(size: int) -> int:
    """The largest that is not above ``size``, which is at least 1."""
    return 1 << (size.bit_length() - 1)
