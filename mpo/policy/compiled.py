"""Functions that torch.compile makes one pass over their tensors of."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from torch import compile

KINDS = 64
"""Most variants (with or without gradient, a mask, a single head) that are compiled of a function."""

F = TypeVar("F", bound=Callable[..., Any])
Fuse = Callable[[F], F]


@cache
def compiled(function: F) -> F:
    """The function compiled for every size at once: with static shapes every new length would be compiled anew.

    A whole graph or an error: what dynamo breaks up is no faster, and FlexAttention uncompiled would hold the scores of
    all pairs of tokens.
    """
    # Not dynamo's own setting, which is each thread's: on a GPU backward passes, and layers that are computed again in
    # them, run in a thread of autograd's.
    return compile(function, dynamic=True, fullgraph=True, recompile_limit=KINDS)  # type: ignore[call-overload,no-any-return]


def eager(function: F) -> F:
    """In place of :func:`compiled`."""
    return function
