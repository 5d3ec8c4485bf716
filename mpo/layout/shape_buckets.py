"""Sizes of products that a CPU's library makes kernels for."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, QUERIES, KEYS = 64, 64, 128
"""What tokens of a row, and what attention's queries and keys that are computed together, are multiples of."""
SIZES = 32
"""Most sizes of a row from a power of two to the next."""


def stepped(size: int, like: Tensor, step: int) -> int:
    """What a ``size`` that changes from one micro-batch to the next is rounded up to, for products of ``like``.

    oneDNN, which computes a CPU's products in bfloat16, makes kernels for every new size, half a megabyte each,
    and keeps them: with every micro-batch of another size training would grow by gigabytes. Elsewhere a size stays what
    it is. Sizes up to ``step`` are multiples of a quarter of it.
    """
    if not few_sizes(like):
        return size
    step = step if size > step else step // 4
    return -(-size // step) * step


def stepped_row(tokens: int, like: Tensor) -> int:
    """The same for the tokens of a row, whose sizes spread the most."""
    return stepped(tokens, like, max(ROWS, power_of_two(tokens) // SIZES))


def few_sizes(like: Tensor) -> bool:
    """Whether a product of ``like`` costs something for being of a new size."""
    return like.device.type == "cpu" and like.dtype == torch.bfloat16


def power_of_two(size: int) -> int:
    """The largest that is not above ``size``, which is at least 1."""
    return 1 << (size.bit_length() - 1)
