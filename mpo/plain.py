"""Configuration records as plain values, for fingerprints and files, and back. No torch."""

from __future__ import annotations

import dataclasses
import enum
import math
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """A dataclass (or a nest of them) as JSON-able values; enums by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def finite(value: Any) -> Any:
    """Plain values with None for numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(cls: type[T], value: Mapping[str, Any]) -> T:
    """An instance of the dataclass ``cls`` from what :func:`to_plain` made of one.

    Raises:
        TypeError: a field that ``cls`` lacks, or one without default that is missing.
    """
    types_of = get_type_hints(cls)
    return cls(**{name: _typed(types_of.get(name, Any), item) for name, item in value.items()})


def _typed(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return from_plain(kind, value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind[value]
    if get_origin(kind) is list:
        return [_typed(get_args(kind)[0], each) for each in value]
    return value
