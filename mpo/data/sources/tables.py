"""Rows of Arrow tables: only the columns of interest are read, values without a JSON form are converted first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
from pyarrow import parquet, types

from mpo.errors import DataError

if TYPE_CHECKING:
    import datasets

BATCH_ROWS = 256
"""Rows held in memory at once, whatever the size of the file."""
NESTED_JSON = ("tools", "tool_calls")
"""Objects of any shape: a table's column has all their fields, null where an object hasn't."""

Found = tuple[str, dict[str, Any]]


def parquet_rows(path: Path, columns: frozenset[str]) -> Iterator[Found]:
    """Rows of a parquet file; columns that are not in ``columns`` (where that is not empty) are null and not read.

    Raises:
        DataError: the file is not parquet, or holds values that cannot be read.
    """
    remedy = "write the file again"
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            chosen = _chosen(names, columns)
            yield from _rows(file.iter_batches(BATCH_ROWS, columns=chosen), str(path), names)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise DataError(f"not readable as parquet: {error}", str(path), remedy) from None


def dataset_rows(data: datasets.Dataset, name: str, columns: frozenset[str]) -> Iterator[Found]:
    """The same of a loaded data set."""
    chosen = data.select_columns(_chosen(data.column_names, columns)).with_format("arrow")
    try:
        yield from _rows(chosen.iter(BATCH_ROWS), name, data.column_names)
    except (pyarrow.ArrowException, OverflowError, ValueError) as error:
        raise DataError(f"holds values that cannot be read: {error}", name, "write the data again") from None


def _chosen(names: Sequence[str], columns: frozenset[str]) -> list[str]:
    chosen = [name for name in names if name in columns]
    return chosen or list(names[:1])  # rows are counted, and refused by their fields


def _rows(batches: Iterable[pyarrow.RecordBatch | pyarrow.Table], name: str, names: Sequence[str]) -> Iterator[Found]:
    number = 0
    nothing = dict.fromkeys(names)
    for batch in batches:
        schema = pyarrow.schema([field.with_type(_plain(field.type)) for field in batch.schema])
        table = batch if isinstance(batch, pyarrow.Table) else pyarrow.Table.from_batches([batch])
        if not schema.equals(table.schema):
            table = table.cast(schema)
        sparse = any(_holds(field, NESTED_JSON) for field in schema)
        for row in table.to_pylist():
            number += 1
            yield f"{name}:row {number}", {**nothing, **(_without_nulls(row) if sparse else row)}


def _plain(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type to convert to first: times as counts (Python's end in the year 9999), decimals as floats."""
    if types.is_decimal(kind):
        return pyarrow.float64()
    if types.is_date32(kind) or types.is_time32(kind):
        return pyarrow.int32()
    if types.is_temporal(kind) and not types.is_interval(kind):
        return pyarrow.int64()
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_plain(field.type)) for field in kind])
    if types.is_large_list(kind):
        return pyarrow.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    if types.is_list(kind):
        return pyarrow.list_(kind.value_field.with_type(_plain(kind.value_type)))
    return kind


def _holds(field: pyarrow.Field, names: Sequence[str]) -> bool:
    return field.name in names or any(_holds(field.type.field(i), names) for i in range(field.type.num_fields))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
