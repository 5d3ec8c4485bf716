"""Matrix products of bfloat16 values whose result is float32: not rounded to bfloat16 on the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def products_of(dtype: torch.dtype) -> Iterator[None]:
    """Let a CPU compute products of float32 tensors whose values have ``dtype``'s digits alone as such.

    In bfloat16 the library has faster ways for them, on any CPU that it knows; what it sums is float32 all the same.
    """
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    if dtype == torch.bfloat16:
        products.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


def operand(values: Tensor, memory: Tensor | None = None) -> Tensor:
    """``values`` as :func:`wide_product` takes them: widened on a CPU, whose products of bfloat16 tensors are rounded.

    Args:
        memory: float32, of the values' shape, to write them into; None: new memory.
    """
    if values.is_cuda or values.dtype == torch.float32:
        return values
    return values.float() if memory is None else memory.copy_(values)


def wide_product(left_ND: Tensor, right_DV: Tensor, out_NV: Tensor, dtype: torch.dtype) -> Tensor:
    """left · right into ``out_NV``, float32, of two operands whose values have ``dtype``'s digits."""
    if left_ND.dtype == torch.float32:
        with products_of(dtype):
            return torch.mm(left_ND, right_DV, out=out_NV)
    return torch.mm(left_ND, right_DV, out_dtype=torch.float32, out=out_NV)  # type: ignore[call-overload,no-any-return]
