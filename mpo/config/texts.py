"""Whether the texts and paths of a configuration can be written: as UTF-8, as JSON, as file names. No torch."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from mpo.config.schema import RunConfig
from mpo.errors import ConfigError

PATHS = (
    *("cache_dir", "results", "model.path", "model.tokenizer", "model.reference", "model.chat_template"),
    *("data.source", "data.heldout_source"),
)
PART_BYTES, PATH_BYTES = 255, 3800
"""Most of one part of a path and of a whole one; Linux takes 4096, of which stages' own names need some."""
TEXT_BYTES = 10_000
"""Most of an option of a loss, partition, sampler, scorer, source, measure or logger."""
DEPTH = 20
"""Most levels of lists and mappings inside such an option."""
FREE = (
    *("sampler", "score", "score_also", "loss", "partition", "model.architecture", "data.source"),
    *("evaluate.measures", "logger"),
)
"""Mappings whose keys the schema does not know."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUL_OR_SURROGATE = re.compile(r"[\x00\ud800-\udfff]")


def check_texts(config: RunConfig) -> None:
    """Raise ConfigError for a text that no file, terminal or path can hold, and for an option that JSON cannot."""
    for key, value in _leaves(config, "", 0):
        if isinstance(value, str):
            _check_text(key, value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{value} is not a finite number", key, "give one")
        elif not (value is None or isinstance(value, bool | int | float | Enum)):
            raise ConfigError(f"a value of type {type(value).__name__} cannot be recorded", key,
                              "give a number, a text, true, false, null, or a list or mapping of them")  # fmt: skip
    for key in PATHS:
        group, _, name = key.rpartition(".")
        text = getattr(getattr(config, group) if group else config, name)
        if isinstance(text, str):  # data.source may be a class
            check_path(key, text)


def check_path(key: str, text: str) -> None:
    """Raise ConfigError for a path that is too long for a file system, or of a user who does not exist."""
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # its user has no home
        raise ConfigError(f"'{text}' begins with a user that this machine does not know", key,
                          "write the folder out, or ./~NAME for one called so") from error  # fmt: skip
    size, longest = len(os.fsencode(path)), max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > PART_BYTES:
        raise ConfigError(f"a part of the path has {longest} bytes", key, f"give at most {PART_BYTES}")
    if size > PATH_BYTES:
        raise ConfigError(f"the path has {size} bytes", key, f"give at most {PATH_BYTES}")


def _check_text(key: str, value: str) -> None:
    """Raise ConfigError for one text; free-form options may hold line breaks and other control characters."""
    free = key.startswith(tuple(f"{group}." for group in FREE))
    found = (_NUL_OR_SURROGATE if free else re.compile(f"{_CONTROL.pattern}|{_NUL_OR_SURROGATE.pattern}")).search(value)
    if found is not None:
        raise ConfigError(f"holds the character U+{ord(found.group()):04X}", key, "leave it out")
    most = TEXT_BYTES if free else PATH_BYTES if key in PATHS else PART_BYTES
    if len(value.encode()) > most:
        raise ConfigError(f"a text of {len(value.encode()):,} bytes", key, f"give at most {most:,}")


def _leaves(node: Any, key: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every value with its key, down through records, mappings and lists."""
    if depth > DEPTH:
        raise ConfigError(f"more than {DEPTH} levels of lists and mappings", key[:100], "give a flatter one")
    below = f"{key}." if key else ""
    if dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            yield from _leaves(getattr(node, field.name), f"{below}{field.name}", depth + 1)
    elif isinstance(node, dict):
        for name, value in node.items():
            if not isinstance(name, str):
                raise ConfigError(f"the key {name!r} is not text", key, f"quote it: '{name}'")
            yield from ((f"{below}(a key)", name), *_leaves(value, f"{below}{name}", depth + 1))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _leaves(value, f"{key}[{number}]", depth + 1)
    else:
        yield key, node
