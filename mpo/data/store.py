"""Response sets on disk between stages: streamed parquet that the ``response_sets`` layout reads as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from mpo.data.batches import batched
from mpo.errors import DataError
from mpo.types import Message, Response, ResponseSet

GROUP_SETS = 1024
"""Sets in a row group, and so in memory at once."""

_TURN = ("role", "content", "reasoning", "tool_calls", "tool_call_id", "name")
SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("prompt", pyarrow.list_(pyarrow.struct([(name, pyarrow.string()) for name in _TURN]))),
        (
            "responses",
            pyarrow.list_(
                pyarrow.struct(
                    [
                        ("text", pyarrow.string()),
                        ("score", pyarrow.float64()),
                        ("model", pyarrow.string()),
                        ("accepted", pyarrow.bool_()),
                        ("finished", pyarrow.bool_()),
                        ("reasoning", pyarrow.string()),
                        ("tool_calls", pyarrow.string()),
                    ]
                )
            ),
        ),
        ("tools", pyarrow.string()),
    ]
)


def write_sets(path: Path, sets: Iterable[ResponseSet]) -> int:
    """Write the sets in order and return how many there were."""
    count = 0
    with parquet.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for group in batched(sets, GROUP_SETS):
            writer.write_table(pyarrow.Table.from_pylist([_as_row(one) for one in group], SCHEMA))
            count += len(group)
    return count


def read_stored_sets(path: Path) -> Iterator[ResponseSet]:
    """Yield the sets that ``write_sets`` wrote; raises ``DataError`` for any other file."""
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not readable as parquet: {error}", str(path), "run the stage that writes it again") from None
    with file:
        if not file.schema_arrow.equals(SCHEMA):
            found = ", ".join(file.schema_arrow.names)
            remedy = "read it with layout response_sets, or run the stage that writes it again"
            raise DataError(f"not stored response sets: columns {found}", str(path), remedy)
        for batch in file.iter_batches(GROUP_SETS):
            for row in batch.to_pylist():
                yield ResponseSet(
                    row["id"],
                    tuple(Message(**turn) for turn in row["prompt"]),
                    tuple(Response(**response) for response in row["responses"]),
                    row["tools"],
                )


def copy_sets(source: Path, indices: Iterable[int], path: Path) -> int:
    """Write those of the stored sets at ``source`` that have the ``indices``, in their order; returns how many."""
    chosen = np.sort(np.fromiter(indices, np.int64))
    kept: list[pyarrow.RecordBatch] = []
    start = 0
    with parquet.ParquetFile(source) as file, parquet.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for batch in file.iter_batches(GROUP_SETS):
            first, end = np.searchsorted(chosen, (start, start + len(batch)))
            kept.append(batch.take(pyarrow.array(chosen[first:end] - start)))
            start += len(batch)
            if sum(map(len, kept)) >= GROUP_SETS:
                writer.write_table(pyarrow.Table.from_batches(kept, SCHEMA))
                kept = []
        if any(len(batch) for batch in kept):
            writer.write_table(pyarrow.Table.from_batches(kept, SCHEMA))
    return len(chosen)


def count_stored_sets(path: Path) -> int:
    """How many sets ``write_sets`` wrote there."""
    return int(parquet.read_metadata(path).num_rows)


def _as_row(one: ResponseSet) -> dict[str, Any]:
    return {
        "id": one.id,
        "prompt": [{name: getattr(turn, name) for name in _TURN} for turn in one.prompt],
        "responses": [
            {
                "text": each.text,
                "score": each.score,
                "model": each.model,
                "accepted": each.accepted,
                "finished": each.finished,
                "reasoning": each.reasoning,
                "tool_calls": each.tool_calls,
            }
            for each in one.responses
        ],
        "tools": one.tools,
    }
