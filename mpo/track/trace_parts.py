"""The parts that a training step's time is sorted into, by the names of operators, kernels and the loop's own ranges.

What happens in a part's operator or range counts as that part, down to the innermost one that has a name here. Names of
CUDA kernels are those of torch 2.13's libraries and compilers; none has been seen in a trace of this trainer yet.
Attention that is computed by plain products (a dense mask, transformers' ``eager``) counts as products.
"""

from __future__ import annotations

import re
from functools import cache

RANGE = "mpo: "
"""What the names of the training loop's own ranges begin with."""
STEP = f"{RANGE}step "
"""The range of an optimizer step; its number follows."""
LAYOUT_RANGE = f"{RANGE}layout"

HEAD_FORWARD = "head, forwards"
HEAD_BACKWARD = "head, backwards (logits again, two gradients)"
ATTENTION_FORWARD = "attention, forwards"
ATTENTION_BACKWARD = "attention, backwards"
PRODUCTS = "layers: products"
ELEMENTWISE = "layers: elementwise, norms, copies"
LOSS = "loss and metrics"
COMMUNICATION = "communication between processes"
LAYOUT = "layout of batches, copies to and from the card"
OPTIMIZER = "optimizer"
WAITING = {"cpu": "outside operators: Python, waiting", "cuda": "no kernel runs: the card waits"}
"""By the device; what nothing above is at work in."""

_LAYERS = "layers"
_ATTENTION = r"_attention|scaled_?dot_?product|flash_(fwd|bwd)|flash::|fmha|sdpa"
_BACKWARD = r"backward|bwd|bprop|cutlassB"
_RULES = (
    (r"nccl|^gloo:|^c10d::|^record_param_comms", COMMUNICATION),
    (r"_TargetLogpsBackward", HEAD_BACKWARD),
    (r"_TargetLogps", HEAD_FORWARD),
    (rf"(?i)({_ATTENTION}).*({_BACKWARD})|({_BACKWARD}).*({_ATTENTION})", ATTENTION_BACKWARD),
    (rf"(?i){_ATTENTION}", ATTENTION_FORWARD),
    (rf"^Optimizer\.step|multi_tensor_apply|^{RANGE}update", OPTIMIZER),
    (rf"^Memcpy (HtoD|DtoH)|^{LAYOUT_RANGE}", LAYOUT),
    (rf"^{RANGE}(forward|backward)", _LAYERS),
    (rf"^{RANGE}", LOSS),
)
_NAMED = [(re.compile(pattern), part) for pattern, part in _RULES]
_PRODUCT_OPERATORS = frozenset(
    {"aten::mm", "aten::addmm", "aten::bmm", "aten::addmm_", "aten::baddbmm", "aten::linear", "aten::_grouped_mm",
     "mkldnn::_linear_pointwise"}
)  # fmt: skip
_PRODUCT_KERNELS = re.compile(r"gemm|cutlass|nvjet|xmma|cublas|triton_tem_fused_(add)?(b)?mm|splitKreduce")


@cache
def named(name: str) -> str | None:
    """What an operator, kernel or range of this name is a part of, with all that it calls; None: what calls it says."""
    return next((part for pattern, part in _NAMED if pattern.search(name)), None)


def part(around: str | None, operator: str, kernel: str = "") -> str:
    """The part of a piece of work.

    Args:
        around: what :func:`named` says of the innermost thing around it that has a name here, itself included.
        operator: that it is, or that launched its kernel.
        kernel: on a card.
    """
    if around not in (None, _LAYERS):
        assert around is not None
        return around
    products = operator in _PRODUCT_OPERATORS or (kernel and _PRODUCT_KERNELS.search(kernel))
    return PRODUCTS if products else ELEMENTWISE
