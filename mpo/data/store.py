"""Response sets on disk between stages: streamed parquet that ``datasets`` and the
``response_sets`` layout read as well."""

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
"""Sets in a row group, and so in memory at once, as Arrow holds them."""
READ_SETS = 64
"""Sets in memory at once as Python objects: of drawn tokens each takes some sixty bytes."""
FORMAT = "3"
"""Of the files; 1, without drawn tokens and scores by name, named none; in 2 these scores were a map, a type that
``datasets`` does not read."""

_FORMAT_KEY, _VOCABULARY_KEY = b"mpo_format", b"mpo_vocabulary"

_TURN = ("role", "content", "reasoning", "tool_calls", "tool_call_id", "name")
_NAMED_SCORE = pyarrow.struct([("name", pyarrow.string()), ("score", pyarrow.float64())])
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
                        (
                            "scores",
                            pyarrow.list_(_NAMED_SCORE),
                        ),
                        ("model", pyarrow.string()),
                        ("accepted", pyarrow.bool_()),
                        ("finished", pyarrow.bool_()),
                        ("reasoning", pyarrow.string()),
                        ("tool_calls", pyarrow.string()),
                        ("token_ids", pyarrow.list_(pyarrow.int32())),
                        ("token_logps", pyarrow.list_(pyarrow.float32())),
                    ]
                )
            ),
        ),
        ("tools", pyarrow.string()),
    ]
)


def write_sets(path: Path, sets: Iterable[ResponseSet], vocabulary: str | None = None) -> int:
    """Write the sets in order and return how many there were.

    Args:
        vocabulary: digest of the vocabulary that the ``token_ids`` of responses belong to, see
            :func:`mpo.data.tokenizer.vocabulary_digest`.
    """
    count, schema = 0, _schema(vocabulary)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in batched(sets, GROUP_SETS):
            writer.write_table(pyarrow.Table.from_pylist([_as_row(one) for one in group], schema))
            count += len(group)
    return count


def read_stored_sets(path: Path) -> Iterator[ResponseSet]:
    """Yield the sets that ``write_sets`` wrote; raises ``DataError`` for any other file, also of another format."""
    with _opened(path) as file:
        for batch in file.iter_batches(READ_SETS):
            for row in batch.to_pylist():
                yield ResponseSet(
                    row["id"],
                    tuple(Message(**turn) for turn in row["prompt"]),
                    tuple(_response(response) for response in row["responses"]),
                    row["tools"],
                )


def stored_vocabulary(path: Path) -> str | None:
    """The digest of the vocabulary that drawn tokens belong to, where one was given to ``write_sets``; raises as
    ``read_stored_sets``."""
    with _opened(path) as file:
        return _vocabulary(file)


def copy_sets(source: Path, indices: Iterable[int], path: Path) -> int:
    """Write those of the stored sets at ``source`` that have the ``indices``, in their order; returns how many."""
    chosen = np.sort(np.fromiter(indices, np.int64))
    kept: list[pyarrow.RecordBatch] = []
    start = 0
    with _opened(source) as file:
        schema = _schema(_vocabulary(file))
        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in file.iter_batches(GROUP_SETS):
                first, end = np.searchsorted(chosen, (start, start + len(batch)))
                kept.append(batch.take(pyarrow.array(chosen[first:end] - start)))
                start += len(batch)
                if sum(map(len, kept)) >= GROUP_SETS:
                    writer.write_table(pyarrow.Table.from_batches(kept, schema))
                    kept = []
            if any(len(batch) for batch in kept):
                writer.write_table(pyarrow.Table.from_batches(kept, schema))
    return len(chosen)


def count_stored_sets(path: Path) -> int:
    """How many sets ``write_sets`` wrote there."""
    return int(parquet.read_metadata(path).num_rows)


def _schema(vocabulary: str | None) -> pyarrow.Schema:
    named = {} if vocabulary is None else {_VOCABULARY_KEY: vocabulary.encode()}
    return SCHEMA.with_metadata({_FORMAT_KEY: FORMAT.encode(), **named})


def _opened(path: Path) -> parquet.ParquetFile:
    """The file, to be closed; raises ``DataError`` unless ``write_sets`` wrote it, in this format."""
    again = "run the stage that writes it again"
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not readable as parquet: {error}", str(path), again) from None
    found = file.schema_arrow
    written = (found.metadata or {}).get(_FORMAT_KEY, b"1").decode(errors="replace")
    if found.equals(SCHEMA) and written == FORMAT:
        return file
    file.close()
    if found.names == SCHEMA.names and written != FORMAT:
        raise DataError(f"response sets in format {written}, not {FORMAT}", str(path), again)
    remedy = f"read it with layout response_sets, or {again}"
    raise DataError(f"not stored response sets: columns {', '.join(found.names)}", str(path), remedy)


def _vocabulary(file: parquet.ParquetFile) -> str | None:
    named = (file.schema_arrow.metadata or {}).get(_VOCABULARY_KEY)
    return None if named is None else named.decode()


def _response(row: dict[str, Any]) -> Response:
    row["scores"] = {each["name"]: each["score"] for each in row["scores"] or ()}
    for name in ("token_ids", "token_logps"):
        if row[name] is not None:
            row[name] = tuple(row[name])
    return Response(**row)


def _as_row(one: ResponseSet) -> dict[str, Any]:
    return {
        "id": one.id,
        "prompt": [{name: getattr(turn, name) for name in _TURN} for turn in one.prompt],
        "responses": [
            {
                "text": each.text,
                "score": each.score,
                "scores": [{"name": name, "score": score} for name, score in each.scores.items()],
                "model": each.model,
                "accepted": each.accepted,
                "finished": each.finished,
                "reasoning": each.reasoning,
                "tool_calls": each.tool_calls,
                "token_ids": each.token_ids,
                "token_logps": each.token_logps,
            }
            for each in one.responses
        ],
        "tools": one.tools,
    }
