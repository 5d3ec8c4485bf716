"""Options of nested nodes, apart and together again. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def apart(node: Mapping[str, Any], keys: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """``node`` without the options ``keys``, such as ``judges.mine.urls``, and these alone."""
    kept, taken = {}, {}
    for name, value in node.items():
        inner = {key.removeprefix(f"{name}.") for key in keys if key.startswith(f"{name}.")}
        if name in keys:
            taken[name] = value
        elif inner and isinstance(value, Mapping):
            kept[name], of_it = apart(value, inner)
            if of_it:
                taken[name] = of_it
        else:
            kept[name] = value
    return kept, taken


def together(kept: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    """The node that :func:`apart` has taken apart."""
    found = dict(kept)
    for name, value in taken.items():
        found[name] = together(found[name], value) if isinstance(found.get(name), Mapping) else value
    return found
