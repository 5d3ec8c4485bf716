"""Our own layout: {id, prompt, responses: [{text | response, score?, model?, accepted?, finished?}, …]} with any K.

``responses`` may be a list of strings beside a parallel list ``scores``. Parquet of the same shape reads alike. A set
of marked responses without any score gets 1 for accepted and 0 for rejected, as pairs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mpo.data.problems import Reason, RowError
from mpo.data.sources import fields
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.types import Response

KEYS = frozenset({"prompt", "responses"})


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """``score_field`` names the score of a response (default ``score``), or the parallel list (default ``scores``)."""
    prompt = fields.prompt(fields.field(row, "prompt"))
    entries = fields.items(fields.field(row, "responses"), "responses")
    beside = fields.parallel_scores(row, score_field or "scores", len(entries))
    responses = []
    for index, entry in enumerate(entries):
        name = f"responses[{index}]"
        if isinstance(entry, Mapping):
            response = _from_object(entry, name, score_field or "score")
            if response.score is None and beside[index] is not None:
                response = replace(response, score=beside[index])
        else:
            response = Response(fields.text(entry, name, Reason.RESPONSE_NOT_TEXT), beside[index])
        responses.append(response)
    if all(response.score is None and response.accepted is not None for response in responses):
        responses = [replace(response, score=float(bool(response.accepted))) for response in responses]
    return Draft(prompt, tuple(responses))


def _from_object(entry: Row, name: str, score_field: str) -> Response:
    body = entry.get("text", entry.get("response"))
    model = entry.get("model")
    return Response(
        text=fields.text(body, f"{name}.text", Reason.RESPONSE_NOT_TEXT),
        score=fields.score(entry.get(score_field), f"{name}.{score_field}"),
        model=None if model is None else fields.text(str(model), f"{name}.model", Reason.NOT_UNICODE),
        accepted=_mark(entry, name, "accepted"),
        finished=_mark(entry, name, "finished") is not False,
    )


def _mark(entry: Row, name: str, key: str) -> bool | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, bool):
        raise RowError(Reason.BAD_MARK, f"{name}.{key} is {fields.kind(value)}, not true, false or null")
    return value
