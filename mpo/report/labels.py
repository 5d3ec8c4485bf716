"""Short names of configurations: by what they differ in. Light to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_OWN_KEYS = ("seed", "name", "cache_dir", "results", "train.stop_behind")
"""Config keys that differ between runs without making them different experiments."""

ABSENT = "–"


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Dotted keys whose values are not the same in every config, in order of appearance; never the seed or name."""
    each = [flat(config) for config in configs]
    keys = dict.fromkeys(key for one in each for key in one if key not in _OWN_KEYS)
    return tuple(key for key in keys if len({repr(one.get(key, ABSENT)) for one in each}) > 1)


def values_of(config: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """The values of ``keys`` as text, a class by its name."""
    found = flat(config)
    return tuple(_text(key, found.get(key, ABSENT)) for key in keys)


def _text(key: str, value: Any) -> str:
    # A class is known by its name; where it lives says nothing to a reader.
    return str(value).rsplit(".", 1)[-1] if key.endswith("_target_") else str(value)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def short(key: str, keys: Sequence[str]) -> str:
    """A key without ``_target_``, and its last part alone where no other key ends the same."""
    bare = key.removesuffix("._target_")
    last = bare.rsplit(".", 1)[-1]
    same = [other for other in keys if other.removesuffix("._target_").rsplit(".", 1)[-1] == last]
    return last if len(same) == 1 else bare


def labels_of(groups: Sequence[tuple[str, ...]], keys: Sequence[str]) -> dict[tuple[str, ...], str]:
    """A short name for each group: its values of as few keys as tell the groups apart, the loss before all others.

    A value stands with its key's name unless it is a class.
    """
    order = sorted(range(len(keys)), key=lambda place: not keys[place].startswith("loss."))
    chosen: list[int] = []
    shown = 1
    for place in order:
        distinct = len({tuple(values[other] for other in (*chosen, place)) for values in groups})
        if distinct > shown:
            chosen.append(place)
            shown = distinct
    labels = {}
    for values in groups:
        parts = [
            values[place] if keys[place].endswith("_target_") else f"{short(keys[place], keys)} {values[place]}"
            for place in chosen
            if values[place] != ABSENT
        ]
        labels[values] = ", ".join(parts) or "all runs"
    return labels
