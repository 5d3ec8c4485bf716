"""One run as a parquet file: a row an estimate, with the values of its prompts. No torch; pyarrow where it is used."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.cache.artifacts import write_bytes
from mpo.errors import DataError
from mpo.evaluate.records import Baseline, PromptValues
from mpo.plain import finite
from mpo.results.records import SCHEMA_VERSION, Row, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow
    from pyarrow import parquet

SUFFIX = ".parquet"
VERSION_KEY, ROWS_KEY, PROMPTS_KEY = b"mpo_results", b"mpo_rows", b"mpo_prompts"
"""Of the file's metadata: the schema, and digests of the estimates and of the values by prompt."""
OF_RUN = (
    *("id", "run_key", "config_key", "name", "seed", "config", "versions", "commit", "hardware", "command"),
    *("created", "seconds", "note"),
)
ABOUT = ("metric", "split", "temperature", "round", "judge", "baseline")
OF_ESTIMATE = (*ABOUT, "value", "standard_error", "n", "unit", "baselines")
PROMPTS, VALUES = "prompts", "prompt_values"
AS_JSON = ("config", "versions", "baselines")
"""Columns whose values are JSON texts."""
_DOUBLES, _INTEGERS = ("temperature", "value", "standard_error", "seconds"), ("seed", "round", "n")


class Newer(DataError):
    """A file of a newer schema than this version's."""


def table(rows: Iterable[Row]) -> pyarrow.Table:
    """Estimates with their runs, a row each."""
    return _table([_as_row(row.run, row) for row in rows], (*OF_RUN, *OF_ESTIMATE))


def write_run(path: Path, run: Run, rows: Sequence[Row], by_prompt: Sequence[PromptValues]) -> None:
    """Write the file atomically. A run without estimates is one row without a metric."""
    import pyarrow
    from pyarrow import parquet

    behind = {each.about: each for each in by_prompt}
    records = []
    for row in rows or (None,):
        values = None if row is None else behind.get(row.estimate.about)
        of_prompts = {PROMPTS: values and list(values.prompts), VALUES: values and list(values.values)}
        records.append(_as_row(run, row) | of_prompts)
    whole = _table(records, (*OF_RUN, *OF_ESTIMATE, PROMPTS, VALUES))
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(sealed(whole), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def sealed(whole: pyarrow.Table, version: int = SCHEMA_VERSION) -> pyarrow.Table:
    """With the schema's version, and digests by which damage shows."""
    rows = [name for name in whole.column_names if name not in (PROMPTS, VALUES)]
    metadata = {
        VERSION_KEY: str(version).encode(),
        ROWS_KEY: _digest(whole.select(rows)),
        PROMPTS_KEY: _digest(whole.select([*ABOUT, PROMPTS, VALUES])),
    }
    return whole.replace_schema_metadata(metadata)


def read_run(path: Path) -> tuple[Run, list[Row]]:
    """A run and its estimates.

    Raises:
        Newer: the file is of a newer schema.
        DataError: it is damaged, or not the results of a run.
    """
    records = _read(path, (*OF_RUN, *OF_ESTIMATE), ROWS_KEY)
    try:
        run = Run(**{name: records[0][name] for name in OF_RUN if records[0][name] is not None})
        return run, [_row(run, each) for each in records if each["metric"] is not None]
    except (TypeError, IndexError) as error:
        raise DataError(f"not the results of a run: {error}", str(path), _AGAIN) from None


def read_prompt_values(path: Path) -> list[PromptValues]:
    """The values of the prompts, of each estimate that has them; raises as :func:`read_run`."""
    found = _read(path, (*ABOUT, PROMPTS, VALUES), PROMPTS_KEY)
    return [
        PromptValues(**{name: each[name] for name in ABOUT}, prompts=tuple(each[PROMPTS]), values=tuple(each[VALUES]))
        for each in found
        if each[PROMPTS] is not None
    ]


_AGAIN = "delete it, and repeat the run or copy the file again"


def _read(path: Path, columns: Sequence[str], digest: bytes) -> list[dict[str, Any]]:
    """The columns, None where an older file lacks one."""
    with _opened(path) as file:
        schema = file.schema_arrow  # read anew each time that it is asked for
        there = [name for name in columns if name in schema.names]
        found = file.read(columns=there, use_threads=False)
        if (schema.metadata or {}).get(digest) != _digest(found):
            raise DataError("damaged: it does not hold what was written", str(path), _AGAIN)
        records = found.to_pylist()
    texts = {record[name] for record in records for name in AS_JSON if record.get(name) is not None}
    values = {text: json.loads(text) for text in texts}  # a run's configuration stands in every row
    for record in records:
        record |= {name: values[record[name]] for name in AS_JSON if record.get(name) is not None}
    return [dict.fromkeys(columns) | record for record in records]


@contextmanager
def _opened(path: Path) -> Iterator[parquet.ParquetFile]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            version = (file.schema_arrow.metadata or {}).get(VERSION_KEY)
            if version is None:
                raise DataError("not the results of a run", str(path), "keep other files elsewhere")
            if int(version) > SCHEMA_VERSION:
                what = f"results in schema {int(version)}, and this version reads up to {SCHEMA_VERSION}"
                raise Newer(what, str(path), "install a newer mpo")
            yield file
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"damaged: {error}", str(path), _AGAIN) from None


def _digest(found: pyarrow.Table) -> bytes:
    names = sorted(found.column_names)
    content = json.dumps([names, [[record[name] for name in names] for record in found.to_pylist()]])
    return hashlib.sha256(content.encode()).hexdigest().encode()


def _as_row(run: Run, row: Row | None) -> dict[str, Any]:
    of_run = {name: getattr(run, name) for name in OF_RUN}
    of_estimate = {name: None if row is None else getattr(row, name) for name in OF_ESTIMATE}
    of_estimate["baselines"] = None if row is None else [asdict(each) for each in row.baselines]
    if row is not None and row.standard_error is not None and not math.isfinite(row.standard_error):
        of_estimate["standard_error"] = None  # as in a run's own record
    found = {**of_run, **of_estimate}
    as_json = {name: json.dumps(finite(found[name])) for name in AS_JSON if found[name] is not None}
    return found | as_json


def _row(run: Run, record: dict[str, Any]) -> Row:
    baselines = [
        Baseline(each["name"], float("nan") if each["value"] is None else each["value"], each["standard_error"])
        for each in record["baselines"] or ()
    ]
    named = {name: record[name] for name in OF_ESTIMATE}
    return Row(run, **{**named, "baselines": tuple(baselines)})


def _table(records: list[dict[str, Any]], columns: Sequence[str]) -> pyarrow.Table:
    import pyarrow

    def kind(name: str) -> pyarrow.DataType:
        if name in _DOUBLES:
            return pyarrow.float64()
        if name in _INTEGERS:
            return pyarrow.int64()
        lists = {PROMPTS: pyarrow.list_(pyarrow.string()), VALUES: pyarrow.list_(pyarrow.float64())}
        return lists.get(name, pyarrow.string())

    return pyarrow.Table.from_pylist(records, pyarrow.schema([(name, kind(name)) for name in columns]))
