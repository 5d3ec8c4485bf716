"""Rows of response sets with one thing wrong in them."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

from tests.unit.data.layout_rows import Row

DEEP: list[Any] = []
for _ in range(60):
    DEEP = [DEEP]
ODD: list[Any] = [
    None, True, False, 0, -1, 10**30, 10**400, 1e308, -1e-308, math.nan, math.inf, -math.inf,
    "", " ", "\n", "\0", "7", "nan", "N/A", "a\x1b[31mred\x07", "\u202eright to left", "\ud800", "x\udfff",
    "\U0001f642", "x" * 300_000, [], {}, [[]], [None], [1, "a", None], ["a"] * 300, DEEP, {"a": {"b": [1]}}, {"": ""},
    {"\ud800": 1}, {"text": "a"}, {"role": "user"}, [{"type": "text", "text": "part"}],
    [{"type": "image_url", "image_url": {"url": "file:///x.png"}}], {"type": "text", "text": "part"},
]  # fmt: skip
"""Values in place of what belongs there."""
ROLES = ["tool", "function", "human", "gpt", "developer", "User", "", None, 3, "\x1b[2J", "\ud800", "r" * 300_000]
KEYS = [
    "",
    " ",
    "prompt ",
    "Prompt",
    "id",
    "\ud800",
    "k" * 300_000,
    "a\x1b[31m",
    "text\n",
    "score",
    "0",
    "a.b",
    "__class__",
]
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}}
FIELDS: dict[str, list[Any]] = {
    "system": ["you are brief", ["you", "are"], 3, {"content": "x"}],
    "tools": [[{"type": "function", "function": {"name": "f", "parameters": {}}}], "[]", "not json", [3]],
    "tool_calls": [[CALL], "text", [None], [{}]],
    "reasoning_content": ["because", ["a"], 5],
    "thinking": ["because", None],
    "name": ["bob", 5],
    "weight": [0, 0.5, "1"],
    "train": [False, True, "no"],
    "images": [["a.png"], "a.png"],
    "history": [[["a", "b"]], "a"],
    "chosen_score": [3],
    "extra_info": [{"a": 1}],
}
"""Fields that other tools write into rows and messages."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within ``value``, itself included."""
    found = [path]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found.extend(places(child, (*path, key)))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def replaced(row: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    at(row, path[:-1])[path[-1]] = new
    return row


def damaged(row: Row, chance: random.Random) -> Any:
    """The row with one thing wrong in it."""
    row = copy.deepcopy(row)
    paths = places(row)
    path = chance.choice(paths)
    objects = [one for one in paths if isinstance(at(row, one), dict)]
    holder = at(row, chance.choice(objects))
    lists = [one for one in paths if isinstance(at(row, one), list)]
    if not holder:
        return None
    match chance.randrange(12):
        case 0 | 1 | 2:
            return replaced(row, path, copy.deepcopy(chance.choice(ODD)))
        case 3:
            holder.pop(chance.choice(list(holder)))
        case 4:
            holder[chance.choice(KEYS)] = holder.pop(chance.choice(list(holder)))
        case 5 | 6:
            name = chance.choice(list(FIELDS))
            holder[name] = copy.deepcopy(chance.choice(FIELDS[name]))
        case 7:
            return replaced(row, path, [at(row, path)])
        case 8:
            other = chance.choice(paths)
            return replaced(row, path, copy.deepcopy(at(row, other)))
        case 9 if lists:
            entries = at(row, chance.choice(lists))
            change = chance.choice([entries.clear, entries.reverse, lambda: entries.append(copy.deepcopy(entries[:1]))])
            change()
        case 10:
            for one in objects:
                if "role" in at(row, one) and chance.random() < 0.5:
                    at(row, one)["role"] = chance.choice(ROLES)
        case _:
            holder[chance.choice(KEYS)] = copy.deepcopy(chance.choice(ODD))
    return row
