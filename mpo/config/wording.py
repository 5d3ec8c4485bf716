"""Parts of a message that several checks share: the nearest valid name, and what a type asks for in plain words."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from enum import Enum
from typing import Any, Union, get_args, get_origin

_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def hint(name: str, valid: Iterable[str]) -> str:
    """A remedy: the nearest of ``valid``, or, where none is near, all of them (the first 40)."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose one of {', '.join(names[:40])}" if names else "leave it out"


def expected(wanted: Any) -> str:
    """What a value of the type ``wanted`` is, e.g. "a number" or "one of cosine, linear"."""
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else expected(part) for part in get_args(wanted))
    origin = get_origin(wanted) or wanted
    if isinstance(origin, type) and issubclass(origin, Enum):
        return f"one of {', '.join(member.name for member in origin)}"
    if origin is list:
        return "a list like [a, b]"
    return _WORDS.get(origin, "a mapping like {key: value}")
