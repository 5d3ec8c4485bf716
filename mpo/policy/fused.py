"""A library's fused head, taken where it is installed and says what ours does."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

HeadKernel = Callable[[Tensor, Tensor, Tensor | None, Tensor, float | None], Tensor]
"""Hidden states [N,D], weights [V,D], bias [V] or none, targets [N] and soft cap to float32 log-probs [N]."""

PROBE = {"positions": 96, "width": 128, "vocabulary": 1536}
"""Size of the random problem on which a kernel has to agree: several blocks each way."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest error of log-probs (nats) and of gradients, relative to the largest entry."""


def liger(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, softcap: float | None
) -> Tensor:
    """Liger's fused linear cross-entropy (arXiv 2410.10989), gradients of the weights summed in float32."""
    from liger_kernel.ops.fused_linear_cross_entropy import (  # type: ignore[import-not-found]
        LigerFusedLinearCrossEntropyFunction,
    )

    # Positional, as an autograd function takes them: no class weights, -100 ignored, no z-loss, no label smoothing.
    nll_N: Tensor = LigerFusedLinearCrossEntropyFunction.apply(
        hidden_ND, weight_VD, targets_N, bias_V, None, -100, 0.0, 0.0, "none", softcap, False, torch.float32
    )[0]
    return -nll_N


@functools.cache
def fused_head(own: HeadKernel, device: str, dtype: torch.dtype, softcap: float | None, bias: bool) -> HeadKernel:
    """Liger's kernel on CUDA if it is installed and agrees with ``own`` there; else ``own``."""
    if device != "cuda" or importlib.util.find_spec("liger_kernel") is None:
        return own
    if agrees(liger, own, device, dtype, softcap, bias):
        return liger
    warnings.warn("liger-kernel is installed but does not do what the head does here; it is not used", stacklevel=2)
    return own


def agrees(
    kernel: HeadKernel, own: HeadKernel, device: str, dtype: torch.dtype, softcap: float | None, bias: bool
) -> bool:
    """Whether two kernels give the same log-probs and gradients of a random problem; one that fails does not."""
    draw = torch.Generator().manual_seed(0)  # the run's own random numbers stay as they are
    positions, width, vocabulary = PROBE["positions"], PROBE["width"], PROBE["vocabulary"]

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(device, dtype)

    values = [random(positions, width), random(vocabulary, width) / width**0.5 * 4]
    values += [random(vocabulary)] if bias else []
    targets_N = torch.randint(vocabulary, (positions,), generator=draw).to(device)
    weights_N = torch.randn(positions, generator=draw).to(device)  # a set's loss weighs every token differently

    def outputs(head: HeadKernel) -> list[Tensor]:
        leaves = [value.clone().requires_grad_() for value in values]
        with torch.enable_grad():
            logps_N = head(leaves[0], leaves[1], leaves[2] if bias else None, targets_N, softcap)
            return [logps_N.detach(), *torch.autograd.grad((logps_N * weights_N).sum(), leaves)]

    expected = outputs(own)
    try:
        actual = outputs(kernel)
    except Exception as error:  # another version of the library: its arguments, its compiler, its devices
        warnings.warn(f"the kernel failed: {error!r}", stacklevel=2)
        return False
    pairs = zip(expected, actual, strict=True)
    scales = [1.0, *(float(gradient.abs().max()) for gradient in expected[1:])]
    errors = [float((a.double() - b.double()).abs().max()) for a, b in pairs]
    return all(error <= TOLERANCE[dtype] * scale for error, scale in zip(errors, scales, strict=True))
