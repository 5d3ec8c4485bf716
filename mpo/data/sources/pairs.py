"""Plain pairs: {prompt, chosen, rejected}, each text or messages that end with the assistant's turn.

The chosen one is marked accepted with score 1, the other rejected with score 0. Where both sides are whole
conversations their turns before the last are the prompt, and must be the same. ``question`` is another name of
``prompt``.
"""

from __future__ import annotations

from mpo.data.problems import Reason, RowError
from mpo.data.sources import fields
from mpo.data.sources.columns import check_prompt_column, difference
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.messages import conversation, prompt
from mpo.types import Message, Response

KEYS = frozenset({"chosen", "rejected"})
READS = frozenset({*KEYS, "prompt", "question", "messages"})
TRANSCRIPT = ("Human:", "Assistant:")


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """One set of two responses."""
    return read_pair(row, 1.0, 0.0, warn)


def read_pair(row: Row, score_chosen: float | None, score_rejected: float | None, warn: Warn) -> Draft:
    """The prompt, the chosen and the rejected response of a row."""
    before_chosen, chosen = _side(row, "chosen", warn)
    before_rejected, rejected = _side(row, "rejected", warn)
    if before_chosen != before_rejected:
        found = difference(before_chosen, before_rejected)
        raise RowError(Reason.PROMPTS_DIFFER, f"chosen and rejected {found}; only the last turn may differ")
    if row.get("messages") not in (None, [], row["chosen"]):
        warn(Reason.UNUSED_FIELD, "column 'messages' is not used, and is not chosen either", "messages")
    if before_chosen:
        turns = check_prompt_column(row, before_chosen, warn)
    else:
        turns = prompt(_prompt_field(row), "prompt", warn)
    sides = ((chosen, score_chosen, True), (rejected, score_rejected, False))
    return Draft(
        turns,
        tuple(
            Response(turn.content, score, accepted=mark, reasoning=turn.reasoning, tool_calls=turn.tool_calls)
            for turn, score, mark in sides
        ),
    )


def _prompt_field(row: Row) -> object:
    if row.get("prompt") is None and row.get("question") is not None:
        return row["question"]
    chosen = row["chosen"]
    if row.get("prompt") is None and isinstance(chosen, str) and all(mark in chosen for mark in TRANSCRIPT):
        what = "no 'prompt', and chosen is a transcript (Human: …, Assistant: …)"
        raise RowError(
            Reason.MISSING_FIELD, f'{what}; write both sides as messages: [{{"role": "user", "content": …}}, …]'
        )
    return fields.field(row, "prompt")


def _side(row: Row, name: str, warn: Warn) -> tuple[tuple[Message, ...], Message]:
    value = fields.field(row, name)
    if isinstance(value, list | tuple):
        return conversation(value, name, warn)
    return (), Message("assistant", fields.text(value, name, Reason.RESPONSE_NOT_TEXT))
