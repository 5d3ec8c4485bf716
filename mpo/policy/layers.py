"""Norms and gated MLPs that keep their inputs alone for the backward pass, and compute the rest of it again.

What a transformers layer computes, to the last bit. Autograd on its own keeps a float32 copy of each norm's input, the
normed values and the gate's activation, and not that input: in bfloat16 four tenths more in a layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpo.errors import cut, first_line
from mpo.policy.compiled import Fuse, compiled, eager

Forward = Callable[[Any, Fuse[Any], Tensor], Tensor]
SCALES = (1.0, 30.0, 1000.0)
"""Of the rows of random input on which a class of modules has to agree: a clamp shows in the large ones."""


def save_only_inputs(lm: nn.Module, recomputed: Container[nn.Module] = ()) -> None:
    """Give the modules of ``lm`` that are such norms or MLPs a forward that says the same and keeps less.

    A module counts as one if it has the parts, its forward takes one input and no more, and, for one of its kind, gives
    the same bits; one that fails on such an input, or takes others, keeps its own.

    Args:
        recomputed: modules of layers that keep their input alone, as :mod:`mpo.policy.recomputation` has it.
    """
    found: dict[tuple[object, ...], Forward | None] = {}
    for module in lm.modules():
        kind = _kind(module)
        if kind not in found:
            candidate = _candidate(module)
            found[kind] = candidate if candidate is not None and _agrees(module, candidate) else None
        forward = found[kind]
        if forward is not None:
            if forward is _mlp and module not in recomputed:
                forward = _mlp_without_product
            module.forward = partial(forward, module, eager)


def compile_fused(lm: nn.Module) -> None:
    """Make one pass of what such modules compute between products, with torch.compile.

    What was rounded to the model's precision on the way no longer is, so the bits differ.
    """
    for module in lm.modules():
        forward = vars(module).get("forward")
        if isinstance(forward, partial) and forward.func in OWN:
            module.forward = partial(forward.func, module, compiled)


def fault_when_compiled(device: torch.device, dtype: torch.dtype) -> str | None:
    """Whether torch.compile fails there, or gives values that no rounding explains: what is wrong, None for nothing."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(device, dtype)

    hidden_ND, weight_D, gradient_ND = random(48, 96), random(96), random(48, 96)
    inverse_N1 = _normed(hidden_ND, weight_D, 1e-6)[1]
    cases: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (_normed, (hidden_ND, weight_D, 1e-6)),
        (_norm_gradients, (gradient_ND, hidden_ND, weight_D, inverse_N1, True)),
        (_gated, (hidden_ND, gradient_ND)),
        (_gated_gradients, (random(48, 96), hidden_ND, gradient_ND)),
    ]
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for function, arguments in cases:
        expected = function(*arguments)
        try:
            found = compiled(function)(*arguments)
        except Exception as error:  # of the compiler, the driver, another version of either
            return f"torch.compile failed: {cut(first_line(error), 120)}"
        pairs = zip(expected, found, strict=True) if isinstance(expected, tuple) else [(expected, found)]
        for one, other in pairs:
            if float((one.double() - other.double()).abs().max()) > tolerance * max(1.0, float(one.abs().max())):
                return f"{function.__name__.strip('_')} differs when compiled"
    return None


def compiles_fused(lm: nn.Module) -> bool:
    """Whether it has modules that :func:`compile_fused` has changed."""
    forwards = (vars(module).get("forward") for module in lm.modules())
    return any(isinstance(each, partial) and compiled in each.args for each in forwards)


def _kind(module: nn.Module) -> tuple[object, ...]:
    """What modules have in common that one probe can speak for: class, classes of their parts, switches and factors.

    Integers (sizes, the layer's number) don't count: they change no formula.
    """
    parts = ((name, type(part)) for name, part in module.named_children())
    values = (
        (name, value) for name, value in vars(module).items() if isinstance(value, bool | float | str | FunctionType)
    )
    return (type(module), *parts, *sorted(values, key=lambda item: item[0]))


def _candidate(module: nn.Module) -> Forward | None:
    if not _takes_one_input(module):
        return None
    if isinstance(getattr(module, "weight", None), nn.Parameter) and hasattr(module, "variance_epsilon"):
        return _norm
    if all(isinstance(getattr(module, name, None), nn.Module) for name in ("gate_proj", "up_proj", "down_proj")):
        return _mlp
    return None


def _takes_one_input(module: nn.Module) -> bool:
    """Whether its forward has one argument: a gate, a list or a flag beside it is a part of the formula."""
    forward = vars(module).get("forward")
    if forward is not None:  # ours, from an earlier call, or somebody's who wraps modules
        return isinstance(forward, partial) and forward.func in OWN
    return len(inspect.signature(type(module).forward).parameters) == 2  # self and the input


def _agrees(module: nn.Module, forward: Forward) -> bool:
    """Whether the module's own forward does the same on random input; norms with random weights, which begin as 1."""
    weight = getattr(module if forward is _norm else module.gate_proj, "weight", None)
    if not isinstance(weight, Tensor):  # quantised or sharded maps, say
        return False
    draw = torch.Generator().manual_seed(0)  # the run's own random numbers stay as they are

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(weight.device, weight.dtype)

    input_1ND = random(1, len(SCALES), weight.shape[-1]) * torch.tensor(SCALES).to(weight)[:, None]
    kept = weight.data
    try:
        if forward is _norm:
            weight.data = random(*weight.shape)
        with torch.no_grad():
            own = module(input_1ND)
            return isinstance(own, Tensor) and torch.equal(own, forward(module, eager, input_1ND))
    except Exception:  # whatever it is, these modules are of another kind
        return False
    finally:
        weight.data = kept


def _norm(self: Any, fuse: Fuse[Any], hidden_states: Tensor) -> Tensor:
    return _RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon, fuse)  # type: ignore[no-any-return,no-untyped-call]


def _mlp(self: Any, fuse: Fuse[Any], x: Tensor) -> Tensor:
    product = _Gated.apply(self.gate_proj(x), self.up_proj(x), fuse)  # type: ignore[no-untyped-call]
    return self.down_proj(product)  # type: ignore[no-any-return]


def _mlp_without_product(self: Any, fuse: Fuse[Any], x: Tensor) -> Tensor:
    """The same; what ``down_proj`` keeps for its backward pass, whatever its kind, is computed again from the two."""
    gate, up = self.gate_proj(x), self.up_proj(x)
    product = _Gated.apply(gate, up, fuse)  # type: ignore[no-untyped-call]
    at, size, factors = product.data_ptr(), product.numel(), (gate.detach(), up.detach())

    def pack(kept: Tensor) -> Tensor | torch.Size:
        return kept.shape if kept.data_ptr() == at and kept.numel() == size else kept

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        return kept if isinstance(kept, Tensor) else fuse(_gated)(*factors).view(kept)  # type: ignore[no-any-return]

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return self.down_proj(product)  # type: ignore[no-any-return]


OWN = (_norm, _mlp, _mlp_without_product)


class _RmsNorm(torch.autograd.Function):
    """Root-mean-square norm (arXiv 1910.07467) in float32, rounded before it is scaled, as Llama has it."""

    @staticmethod
    def forward(ctx: Any, input_ND: Tensor, weight_D: Tensor, epsilon: float, fuse: Fuse[Any]) -> Tensor:
        output_ND, inverse_N1 = fuse(_normed)(input_ND, weight_D, epsilon)
        ctx.save_for_backward(input_ND, weight_D, inverse_N1)
        ctx.fuse = fuse
        return output_ND  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input_ND, weight_D, inverse_N1 = ctx.saved_tensors
        of_input_ND, of_weight_D = ctx.fuse(_norm_gradients)(
            grads[0], input_ND, weight_D, inverse_N1, ctx.needs_input_grad[1]
        )
        return of_input_ND, of_weight_D, None, None


def _normed(input_ND: Tensor, weight_D: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    wide_ND = input_ND.to(torch.float32)
    inverse_N1 = torch.rsqrt(wide_ND.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight_D * (wide_ND * inverse_N1).to(input_ND.dtype), inverse_N1


def _norm_gradients(
    of_output_ND: Tensor, input_ND: Tensor, weight_D: Tensor, inverse_N1: Tensor, wants_weight: bool
) -> tuple[Tensor, Tensor | None]:
    normed_ND = input_ND * inverse_N1
    both_ND = of_output_ND * normed_ND
    wide_D = weight_D.to(both_ND.dtype)
    of_weight_D = both_ND.flatten(0, -2).sum(0).to(weight_D.dtype) if wants_weight else None
    shared_N1 = (both_ND @ wide_D).div_(len(wide_D)).unsqueeze(-1)
    of_input_ND = (of_output_ND * wide_D).sub_(normed_ND.mul_(shared_N1)).mul_(inverse_N1)
    return of_input_ND.to(input_ND.dtype), of_weight_D


class _Gated(torch.autograd.Function):
    """silu(gate) · up (arXiv 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, fuse: Fuse[Any]) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.fuse = fuse
        return fuse(_gated)(gate, up)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.fuse(_gated_gradients)(grads[0], *ctx.saved_tensors), None


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return functional.silu(gate).mul_(up)


def _gated_gradients(of_output: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    of_gate = torch.ops.aten.silu_backward(of_output * up, gate)
    return of_gate, functional.silu(gate).mul_(of_output)
