"""Conversations such as HuggingFaceH4/ultrachat_200k: ``messages``, the last assistant turn being the response."""

from __future__ import annotations

from mpo.data.sources import fields
from mpo.data.sources.columns import check_prompt_column
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.messages import conversation
from mpo.types import Response

KEYS = frozenset({"messages"})
READS = frozenset({"messages", "prompt"})


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """A set of one response, for supervised fine-tuning."""
    turns, last = conversation(fields.field(row, "messages"), "messages", warn)
    turns = check_prompt_column(row, turns, warn)
    return Draft(turns, (Response(last.content, reasoning=last.reasoning, tool_calls=last.tool_calls),))
