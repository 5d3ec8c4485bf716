"""From a source to response sets: find the layout, parse each row, check what all layouts share."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mpo.data.problems import Problem, Reason, RowError
from mpo.data.sources import fields
from mpo.data.sources.base import OnProblem
from mpo.data.sources.columns import COMMON, ID, with_columns
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.layouts import LAYOUTS, check_layout, columns_of_interest, detect_layout
from mpo.data.sources.rows import Found, read_rows
from mpo.errors import DataError
from mpo.types import Response, ResponseSet

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Where response sets come from.

    ``path_or_name``: a .jsonl, .jsonl.gz, .json or .parquet file, or a data set's name (or folder) for
    ``datasets.load_dataset``, which alone uses ``split`` and ``revision``. ``layout``: a key of ``LAYOUTS``, or
    ``auto``. ``score_field``: which score, where the layout has several.
    """

    path_or_name: str
    layout: str = "auto"
    split: str = "train"
    revision: str | None = None
    score_field: str | None = None


def read_sets(spec: SourceSpec, on_problem: OnProblem) -> Iterator[ResponseSet]:
    """Stream the usable sets of a source, in its order; every row that isn't usable goes to ``on_problem``.

    Each set's id is the row's ``id``, else its ``prompt_id``, else a digest of its content; ids are unique. A set has
    a score on every response or on none. Raises ``DataError`` for a source that cannot be read at all.
    """
    layout_name, rows = _open(spec)
    layout = LAYOUTS[layout_name]
    seen: set[str] = set()
    reads = layout.reads | COMMON | ({spec.score_field} if spec.score_field else set())
    for where, row in rows:
        warnings: list[tuple[Reason, str, str]] = []

        def warn(code: Reason, message: str, field: str = "", /) -> None:
            warnings.append((code, message, field))  # noqa: B023

        found_id = ""
        try:
            if isinstance(row, RowError):
                raise row
            found_id = _given_id(row)
            draft = with_columns(layout.parse(row, spec.score_field, warn), row, reads, warn)
            responses = draft.responses
            if layout.gives_responses:
                responses = checked_responses(responses, spec.score_field, warn)
            found_id = _unique_id(row, draft, seen)
        except RowError as error:
            on_problem(Problem(where, found_id, error.reason_code, error.message))
            continue
        seen.add(found_id)
        for code, message, field in dict.fromkeys(warnings):
            on_problem(Problem(where, found_id, code, message, "warning", field))
        yield ResponseSet(found_id, draft.prompt, responses, draft.tools)


def resolve_layout(spec: SourceSpec) -> str:
    """The layout's name, found from the first readable row where it is ``auto``."""
    return _open(spec)[0]


def _open(spec: SourceSpec) -> tuple[str, Iterator[Found]]:
    check_layout(spec.layout, spec.score_field)
    rows = read_rows(spec.path_or_name, spec.split, spec.revision, columns_of_interest(spec.score_field))
    if spec.layout != "auto":
        return spec.layout, rows
    unreadable: list[Found] = []
    for where, row in rows:
        if not isinstance(row, RowError):
            name = detect_layout(row, where)
            check_layout(name, spec.score_field)
            log.info("%s: layout %s (found from its fields)", spec.path_or_name, name)
            return name, itertools.chain(unreadable, [(where, row)], rows)
        unreadable.append((where, row))
    first_where, first = unreadable[0]
    raise DataError(f"no row is readable, the first: {first}", first_where, "fix the file")


def _given_id(row: Row) -> str:
    for key in ID:
        if row.get(key) is not None:
            return fields.text(str(row[key]), key, Reason.NOT_UNICODE)
    return ""


def _unique_id(row: Row, draft: Draft, seen: set[str]) -> str:
    found = _given_id(row)
    if row.get("id") is not None:
        if found in seen:
            raise RowError(Reason.DUPLICATE_ID, f"id '{found}' occurred before")
        return found
    # A prompt_id names the prompt, so several sets may share it; only the same content twice is a duplicate.
    sha = hashlib.sha256()
    turns = [*draft.prompt, *(response.message for response in draft.responses)]
    more = [  # with whose they are
        part
        for n, turn in enumerate(turns)
        for name, value in (("reasoning", turn.reasoning), ("tool_calls", turn.tool_calls))
        if value is not None
        for part in (f"{n}.{name}", value)
    ]
    for part in [*(turn.content for turn in turns), *more, *([draft.tools] if draft.tools else [])]:
        sha.update(part.encode() + b"\0")
    digest = sha.hexdigest()[:16]
    if digest in seen:
        raise RowError(Reason.DUPLICATE_ID, "the same prompt and responses occurred before")
    seen.add(digest)
    if not found:
        return digest
    return f"{found}-{digest}" if found in seen else found


def checked_responses(given: tuple[Response, ...], score_field: str | None, warn: Warn) -> tuple[Response, ...]:
    """The responses to keep: all, or those with a score where some have one."""
    responses = given
    for index, response in enumerate(responses):
        if not (response.text.strip() or response.reasoning or response.tool_calls):
            warn(Reason.EMPTY_RESPONSE, f"response {index} is empty; kept")
    scored = tuple(response for response in responses if response.score is not None)
    if not scored:
        named = f"'{score_field}'" if score_field else "a score"
        warn(Reason.NO_SCORE, f"no response has {named}")
    elif len(scored) < len(responses):
        for index, response in enumerate(responses):
            if response.score is None:
                warn(Reason.UNSCORED_RESPONSE, f"response {index} has no score while others have: dropped")
        responses = scored
    if len(responses) == 1:
        warn(Reason.ONE_RESPONSE, "one response only: nothing to contrast")
    elif scored and len({response.score for response in responses}) == 1:
        warn(Reason.EQUAL_SCORES, f"all {len(responses)} scores are {responses[0].score:g}")
    _warn_equal_texts(given, warn)
    return responses


def _warn_equal_texts(responses: Sequence[Response], warn: Warn) -> None:
    """Equal texts (but for white space at their ends) with different scores pull a policy both ways."""
    first: dict[tuple[str, str | None, str | None], int] = {}
    for index, response in enumerate(responses):
        earlier = first.setdefault((response.text.strip(), response.reasoning, response.tool_calls), index)
        score, other = response.score, responses[earlier].score
        if score is not None and other is not None and score != other:
            warn(Reason.EQUAL_TEXTS, f"responses {earlier} and {index} are equal, with scores {other:g} and {score:g}")
