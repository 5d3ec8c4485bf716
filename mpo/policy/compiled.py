"""Functions that torch.compile makes one pass over their tensors of."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from torch import compile
from torch._dynamo import config as dynamo_config

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
    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, KINDS)
    return compile(function, dynamic=True, fullgraph=True)  # type: ignore[return-value]


def eager(function: F) -> F:
    """In place of :func:`compiled`."""
    return function
