"""Our own layout: {id, prompt, responses: [{text, score?, model?, accepted?, finished?}, …]} with any K.

A response may also have ``reasoning_content`` and ``tool_calls``; its text may be called ``response`` or ``content``.

``responses`` may be a list of strings beside a parallel list ``scores``. Parquet of the same shape reads alike. A set
of marked responses without any score gets 1 for accepted and 0 for rejected, as pairs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from mpo.data.problems import Reason, RowError
from mpo.data.sources import fields
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.messages import ANSWER, answer_parts, content, prompt, warn_unused
from mpo.types import Response

KEYS = frozenset({"prompt", "responses"})
READS = frozenset({*KEYS, "scores"})
TEXT = ("text", "response", "content")


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """``score_field`` names the score of a response (default ``score``), or the parallel list (default ``scores``)."""
    turns = prompt(fields.field(row, "prompt"), "prompt", warn)
    entries = fields.items(fields.field(row, "responses"), "responses")
    beside = fields.parallel_scores(row, score_field or "scores", len(entries))
    responses = []
    for index, entry in enumerate(entries):
        name = f"responses[{index}]"
        if isinstance(entry, Mapping):
            response = _from_object(entry, name, score_field or "score", warn)
            if response.score is None and beside[index] is not None:
                response = replace(response, score=beside[index])
        else:
            response = Response(fields.text(entry, name, Reason.RESPONSE_NOT_TEXT), beside[index])
        responses.append(response)
    if score_field is None and all(response.score is None and response.accepted is not None for response in responses):
        responses = [replace(response, score=float(bool(response.accepted))) for response in responses]
    return Draft(turns, tuple(responses))


def _from_object(entry: Row, name: str, score_field: str, warn: Warn) -> Response:
    key = "text" if entry.get("text") is not None else next((key for key in TEXT if entry.get(key) is not None), None)
    reasoning, calls = answer_parts(entry, name)
    if key is None and not (reasoning or calls):
        what = f"{name} has no 'text'; it has {', '.join(sorted(entry)) or 'no fields'}"
        raise RowError(Reason.RESPONSE_NOT_TEXT, what)
    if entry.get("role", "assistant") not in ("assistant", None):
        raise RowError(Reason.BAD_MESSAGE, f"{name} has role {str(entry['role'])[:80]!r}, not assistant")
    warn_unused(entry, _known(score_field, key), name, warn)
    model = entry.get("model")
    given = entry.get(score_field)
    if given is None:
        given = _by_scorer(entry.get("scores"), f"{name}.scores").get(score_field)
    return Response(
        text="" if key is None else _text(entry[key], f"{name}.{key}", warn),
        score=fields.score(given, f"{name}.{score_field}"),
        model=None if model is None else fields.text(str(model), f"{name}.model", Reason.NOT_UNICODE),
        accepted=_mark(entry, name, "accepted"),
        finished=_mark(entry, name, "finished") is not False,
        reasoning=reasoning,
        tool_calls=calls,
    )


def _by_scorer(value: object, name: str) -> Mapping[str, object]:
    """Scores by scorer's name: an object, or a list of names with scores, as stages store them."""
    if not value:
        return {}
    if isinstance(value, Mapping):
        return value
    found: dict[str, object] = {}
    for each in value if isinstance(value, list | tuple) else [value]:
        if not (isinstance(each, Mapping) and each.keys() >= {"name", "score"}):
            what = f"{name} is {fields.kind(value)}, neither an object nor a list of names with scores"
            raise RowError(Reason.SCORE_NOT_NUMBER, what)
        found[str(each["name"])] = each["score"]
    return found


@cache
def _known(score_field: str, text_key: str | None) -> frozenset[str]:
    # Of which tokenizer a file's token ids are nobody knows: the text is tokenised, and no one is surprised at that.
    own = {"score", "scores", score_field, "model", "accepted", "finished", "role", "token_ids", "token_logps", *ANSWER}
    return frozenset(own if text_key is None else {*own, text_key})


def _text(value: object, name: str, warn: Warn) -> str:
    if isinstance(value, list | tuple):
        return content(value, name, warn)
    return fields.text(value, name, Reason.RESPONSE_NOT_TEXT)


def _mark(entry: Row, name: str, key: str) -> bool | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, bool):
        raise RowError(Reason.BAD_MARK, f"{name}.{key} is {fields.kind(value)}, not true, false or null")
    return value
