"""What a local file holds, estimated from its beginning: for a plan that is printed before anything is read."""

from __future__ import annotations

import gzip
import itertools
import zlib
from dataclasses import dataclass
from pathlib import Path

from mpo.data.problems import Problem
from mpo.data.sources import SourceSpec, read_sets
from mpo.data.sources.rows import read_rows
from mpo.errors import DataError
from mpo.types import Message, ResponseSet

SAMPLE = 200
"""Sets that are looked at."""
CHARACTERS_A_TOKEN = 4.0
"""English under the usual vocabularies; a small one of the data's own has less, other languages fewer still."""
WHOLE = 64 * 2**20
"""Bytes up to which a file that is one JSON document is read for its number of rows."""
PACKED = 16 * 2**20
"""The same for lines packed by gzip; of a smaller file too much is read at once to tell a share of it."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """Sets in the file, responses per set, and mean tokens of a prompt and of a response, all but roughly; the second
    and the last 0 where it holds prompts alone."""

    sets: int
    responses: int
    prompt_tokens: int
    response_tokens: int


def sketch(spec: SourceSpec, max_prompt_tokens: int, max_tokens: int) -> Sketch | None:
    """An estimate from the first usable sets of a file, or None where it is broken or has none.

    Args:
        max_prompt_tokens: a longer prompt's set is not counted.
        max_tokens: responses are cut where prompt and response pass it.
    """
    path = Path(spec.path_or_name)
    problems: list[Problem] = []
    try:
        if path.name.endswith((".json", ".json.gz")) and path.stat().st_size > WHOLE:
            return None
        sets = list(itertools.islice(read_sets(spec, problems.append), SAMPLE))
        rows = _rows(path, len(sets) + sum(problem.severity == "error" for problem in problems))
    except (DataError, EOFError, OSError, zlib.error):  # which the stage that reads it all reports with its place
        return None
    lengths = [(_tokens(one), one) for one in sets]
    kept = [(prompt, one) for prompt, one in lengths if prompt <= max_prompt_tokens]
    responses = sum(len(one.responses) for _, one in kept)
    if not kept:
        return None
    response_tokens = sum(
        min(_characters(response.message) / CHARACTERS_A_TOKEN, max_tokens - prompt)
        for prompt, one in kept
        for response in one.responses
    )
    return Sketch(
        sets=max(1, round(rows.total * len(kept) / rows.seen)),
        responses=max(1, round(responses / len(kept))) if responses else 0,
        prompt_tokens=max(1, round(sum(prompt for prompt, _ in kept) / len(kept))),
        response_tokens=max(1, round(response_tokens / responses)) if responses else 0,
    )


def _tokens(one: ResponseSet) -> float:
    return (len(one.tools or "") + sum(map(_characters, one.prompt))) / CHARACTERS_A_TOKEN


def _characters(turn: Message) -> int:
    return sum(map(len, turn.texts))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows looked at and rows of the whole file."""

    seen: int
    total: float


def _rows(path: Path, seen: int) -> _Rows:
    if seen < SAMPLE:  # that was the whole file
        return _Rows(max(1, seen), seen)
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return _Rows(seen, float(parquet.read_metadata(path).num_rows))
    if path.name.endswith((".json", ".json.gz")):  # one document, or lines after all
        return _Rows(seen, sum(1 for _ in read_rows(str(path), "", None)))
    if path.suffix == ".gz":
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as lines:
            if path.stat().st_size <= PACKED:
                return _Rows(seen, sum(1 for line in lines if line.strip()))
            for _ in itertools.islice(lines, seen):
                pass
            read = raw.tell()
    else:
        with path.open("rb") as raw:
            read = sum(len(line) for line in itertools.islice(raw, seen))
    return _Rows(seen, seen * path.stat().st_size / max(1, read))
