"""Sets that a source of the user's own gives, looked at before anything relies on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from mpo.data.problems import Problem, Reason, RowError
from mpo.data.sources.base import OnProblem, Source
from mpo.data.sources.reader import checked_responses
from mpo.errors import DataError
from mpo.failures.user_code import user_code
from mpo.types import Message, Response, ResponseSet

ROLES = ("system", "user", "assistant", "tool")


def checked_sets(source: Source, sets: Iterable[ResponseSet], on_problem: OnProblem) -> Iterator[ResponseSet]:
    """The usable ones of ``sets``, in order; as with files, others and warnings go to ``on_problem``.

    Raises:
        ConfigError: the source's code raised something.
        DataError: it gave something that is no :class:`ResponseSet`.
    """
    name = type(source).__name__
    seen: set[str] = set()
    number, iterator = 0, iter(sets)
    while True:
        with user_code(type(source).__module__, name, "data.source"):
            one = next(iterator, None)
        if one is None:
            return
        number += 1
        where = f"{name}: set {number}"
        if not isinstance(one, ResponseSet):
            raise DataError(f"{name} gave a {type(one).__name__}", where, "yield mpo.types.ResponseSet")
        warnings: list[tuple[Reason, str, str]] = []

        def warn(code: Reason, message: str, field: str = "", /) -> None:
            warnings.append((code, message, field))  # noqa: B023

        try:
            _check(one, seen)
            responses = checked_responses(one.responses, None, warn) if source.gives_responses else one.responses
        except RowError as error:
            on_problem(Problem(where, str(one.id), error.reason_code, error.message))
            continue
        seen.add(one.id)
        for code, message, field in warnings:
            on_problem(Problem(where, one.id, code, message, "warning", field))
        yield replace(one, responses=responses)


def _check(one: ResponseSet, seen: set[str]) -> None:
    if not isinstance(one.id, str) or not one.id:
        raise RowError(Reason.MISSING_FIELD, "it has no id")
    if one.id in seen:
        raise RowError(Reason.DUPLICATE_ID, f"id '{one.id}' occurred before")
    if not one.prompt:
        raise RowError(Reason.EMPTY_PROMPT, "it has no prompt")
    for turn in one.prompt:
        if not isinstance(turn, Message) or turn.role not in ROLES or not isinstance(turn.content, str):
            raise RowError(Reason.BAD_MESSAGE, f"its prompt holds {turn!r}")
    if one.prompt[-1].role not in ("user", "tool"):
        raise RowError(Reason.BAD_ROLE_ORDER, f"its prompt ends with a turn of the {one.prompt[-1].role}")
    for index, response in enumerate(one.responses):
        if not isinstance(response, Response) or not isinstance(response.text, str):
            raise RowError(Reason.RESPONSE_NOT_TEXT, f"response {index} is {response!r}")
        score: object = response.score
        if score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
            raise RowError(Reason.NAN_SCORE, f"response {index} has the score {score!r}")
