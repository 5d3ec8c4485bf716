"""Conversations such as HuggingFaceH4/ultrachat_200k: ``messages``, the last assistant turn being the response."""

from __future__ import annotations

from mpo.data.sources import fields
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.types import Response

KEYS = frozenset({"messages"})


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """A set of one response, for supervised fine-tuning."""
    turns, answer = fields.conversation(fields.field(row, "messages"), "messages")
    return Draft(fields.checked_prompt(turns, "messages"), (Response(answer),))
