"""Sizes of products that a CPU's library compiles code for."""

from __future__ import annotations

import torch
from torch import Tensor

STEP = 64
"""Rows of a product in bfloat16 on a CPU are a multiple of this."""


def size_step(like: Tensor) -> int:
    """What sizes that change from one micro-batch to the next are rounded up to.

    oneDNN, which computes a CPU's products in bfloat16, compiles code for every new size, a millisecond and a megabyte
    each, and never frees it: with every micro-batch of another size training would grow by gigabytes.
    """
    return STEP if like.device.type == "cpu" and like.dtype == torch.bfloat16 else 1


def up(size: int, step: int) -> int:
    """The least multiple of ``step`` that is not below ``size``."""
    return -(-size // step) * step
