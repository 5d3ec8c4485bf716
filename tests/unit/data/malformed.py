"""Files of response sets that somebody's export, editor or copy has damaged: one for each seed."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from tests.unit.data.damaged_rows import damaged
from tests.unit.data.layout_rows import LAYOUTS, pairs

Rows = list[Any]


def as_json(value: Any) -> str:
    return json.dumps(value)  # lone surrogates become escapes, which JSON allows


def lines_of(rows: Rows, chance: random.Random) -> bytes:
    ends = chance.choice(["\n", "\n", "\n", "\r\n", "\r", "\n\n", " \n"])
    lines = [as_json(row) for row in rows]
    if chance.random() < 0.1:  # a key twice in one object
        lines[0] = lines[0].replace("{", '{"prompt": "another", "id": 7, ', 1)
    if chance.random() < 0.1:
        lines.insert(
            chance.randrange(len(lines) + 1), chance.choice(["", "null", "3", '"text"', "[]", "{}", "NaN", "{"])
        )
    if chance.random() < 0.1:
        lines[-1] += chance.choice([",", "}", "\0", " // note", lines[0]])
    return (ends.join(lines) + ends).encode()


def document_of(rows: Rows, chance: random.Random) -> bytes:
    names = [key for key in rows[0] if isinstance(key, str)] if isinstance(rows[0], dict) else []
    columns = {name: [row.get(name) if isinstance(row, dict) else None for row in rows] for name in names}
    whole = chance.choice(
        [rows, rows, rows, [rows], columns, {"data": rows}, {"train": rows}, [as_json(rows)], rows[0]]
    )
    return json.dumps(whole, indent=chance.choice([None, 2])).encode()


def bytes_damaged(content: bytes, chance: random.Random) -> bytes:
    """What editors, copies and disks do to a text file."""
    place = chance.randrange(len(content) + 1)
    match chance.randrange(9):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + chance.randbytes(chance.randint(1, 20)) + content[place:]
        case 2:
            return content[:place] + b"\0" * chance.choice([1, 5000]) + content[place:]
        case 3:
            return content.decode(errors="replace").encode(
                chance.choice(["utf-16", "utf-32", "utf-8-sig", "utf-16-be"])
            )
        case 4:
            return content.replace(b"question", "qu\xe9stion".encode("latin-1"))
        case 5:
            return b"\xef\xbb\xbf" * 2 + content
        case 6:
            return chance.choice(
                [b"", b"\n \n", b" ", b"\0", b"[", b"{", b"[]", b"null", b"\xff\xfe", chance.randbytes(200)]
            )
        case 7:
            return content[place:] + content[:place]
        case _:
            flipped = bytearray(content)
            flipped[place - 1] ^= 1 << chance.randrange(8)
            return bytes(flipped)


def zipped(content: bytes, chance: random.Random) -> bytes:
    packed = gzip.compress(content, 1)
    match chance.randrange(7):
        case 0:
            return packed[: chance.randrange(len(packed) + 1)]
        case 1:
            return bytes_damaged(packed, chance)
        case 2:
            return packed + packed
        case 3:
            return packed + b"garbage"
        case 4:
            return content
        case 5:
            return gzip.compress(packed)
        case _:
            return packed


DAY = datetime.date(2024, 2, 29)
COLUMNS: list[Callable[[int], pyarrow.Array]] = [
    lambda count: pyarrow.array([DAY] * count),
    lambda count: pyarrow.array([datetime.datetime(9999, 12, 31)] * count, pyarrow.timestamp("us", "Nowhere/Here")),
    lambda count: pyarrow.array([2**62] * count, pyarrow.timestamp("us")),
    lambda count: pyarrow.array([1] * count, pyarrow.timestamp("ns", "Europe/Berlin")),
    lambda count: pyarrow.array([2**62] * count, pyarrow.duration("s")),
    lambda count: pyarrow.array([datetime.time(3)] * count),
    lambda count: pyarrow.array([decimal.Decimal("1.50")] * count, pyarrow.decimal128(10, 2)),
    lambda count: pyarrow.array([b"\xff\x00"] * count, pyarrow.binary()),
    lambda count: pyarrow.array(["a"] * count).dictionary_encode(),
    lambda count: pyarrow.array([[("a", 1)]] * count, pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    lambda count: pyarrow.array([2**64 - 1] * count, pyarrow.uint64()),
    lambda count: pyarrow.array([1.5] * count, pyarrow.float16()),
    pyarrow.nulls,
    lambda count: pyarrow.array([{}] * count, pyarrow.struct([("a", pyarrow.int8())])),
    lambda count: pyarrow.array(["a"] * count, pyarrow.large_string()),
    lambda count: pyarrow.array([[1.0, None]] * count),
]


def table_of(rows: Rows, chance: random.Random) -> pyarrow.Table:
    """A table of the rows as far as Arrow can hold them, a column in a type of its own now and then."""
    usable = [row for row in rows if isinstance(row, dict)] or [pairs(0)]
    columns: dict[str, pyarrow.Array] = {}
    for name in {key: None for row in usable for key in row}:
        try:
            columns[name] = pyarrow.array([row.get(name) for row in usable])
        except (pyarrow.ArrowException, OverflowError, UnicodeError, TypeError, ValueError):
            columns[name.encode(errors="replace").decode()] = pyarrow.array([str(DAY)] * len(usable))
    if chance.random() < 0.6:
        name = chance.choice([*columns, "made", "made"])
        columns[name] = chance.choice(COLUMNS)(len(usable))
    names = [name.encode(errors="replace").decode() for name in columns]
    if chance.random() < 0.05:
        names[0] = names[-1]  # two columns of one name
    table = pyarrow.Table.from_arrays(list(columns.values()), names)
    return table.slice(0, 0) if chance.random() < 0.05 else table


@dataclass(frozen=True)
class Malformed:
    """A file, its layout as a user would name it, and how many rows are in it, if that is known."""

    path: Path
    layout: str
    rows: int | None


def malformed_file(seed: int, folder: Path) -> Malformed:
    """Write the file of this seed; some few come out whole."""
    chance = random.Random(seed)
    layout = chance.choice(list(LAYOUTS))
    make = chance.choice(LAYOUTS[layout])
    rows: Rows = [make(number) for number in range(chance.choice([1, 2, 5]))]
    for _ in range(chance.choice([0, 1, 1, 2])):
        index = chance.randrange(len(rows))
        if isinstance(rows[index], dict):
            rows[index] = damaged(rows[index], chance)
    named = chance.choice([layout, "auto", "auto", chance.choice(list(LAYOUTS))])
    kind = chance.choice(["jsonl", "jsonl", "jsonl", "json", "jsonl.gz", "json.gz", "parquet"])
    path = folder / f"file{seed}.{kind}"
    if kind == "parquet":
        try:
            parquet.write_table(table_of(rows, chance), path)
        except (pyarrow.ArrowException, OSError, ValueError):  # it cannot hold that: then a file that only looks so
            path.write_bytes(lines_of(rows, chance))
        if chance.random() < 0.3:
            path.write_bytes(bytes_damaged(path.read_bytes(), chance))
        return Malformed(path, named, None)
    content = lines_of(rows, chance) if "jsonl" in kind or chance.random() < 0.3 else document_of(rows, chance)
    whole = chance.random() < 0.5
    if not whole:
        content = bytes_damaged(content, chance)
    path.write_bytes(zipped(content, chance) if kind.endswith("gz") else content)
    return Malformed(path, named, len(rows) if whole and kind == "jsonl" and b"\r" not in content else None)
