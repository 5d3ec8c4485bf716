"""Plain pairs: {prompt, chosen, rejected}, each text or messages that end with the assistant's turn.

The chosen one is marked accepted with score 1, the other rejected with score 0. Where both sides are whole
conversations their turns before the last are the prompt, and must be the same.
"""

from __future__ import annotations

from mpo.data.problems import Reason, RowError
from mpo.data.sources import fields
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.types import Message, Response

KEYS = frozenset({"chosen", "rejected"})


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """One set of two responses."""
    prompt, chosen, rejected = read_pair(row)
    return Draft(prompt, (Response(chosen, 1.0, accepted=True), Response(rejected, 0.0, accepted=False)))


def read_pair(row: Row) -> tuple[tuple[Message, ...], str, str]:
    """The prompt, the chosen and the rejected text of a row."""
    before_chosen, chosen = _side(row, "chosen")
    before_rejected, rejected = _side(row, "rejected")
    if before_chosen != before_rejected:
        raise RowError(Reason.PROMPTS_DIFFER, "chosen and rejected answer different conversations")
    if before_chosen:
        return fields.checked_prompt(before_chosen, "chosen"), chosen, rejected
    return fields.prompt(fields.field(row, "prompt")), chosen, rejected


def _side(row: Row, name: str) -> tuple[tuple[Message, ...], str]:
    value = fields.field(row, name)
    if isinstance(value, list | tuple):
        return fields.conversation(value, name)
    return (), fields.text(value, name, Reason.RESPONSE_NOT_TEXT)
