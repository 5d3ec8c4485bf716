"""Prompts alone: ``prompt`` as text or as messages that end with the user's turn; responses are drawn from the policy.

Where the layout is named, the prompt may be in ``messages``, ``question`` or ``instruction`` too. What a row has of
responses is not read, and counted.
"""

from __future__ import annotations

from mpo.data.problems import Reason, RowError
from mpo.data.sources import fields
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.messages import prompt

KEYS = frozenset({"prompt"})
NAMES = ("prompt", "messages", "question", "instruction")
ANSWERS = ("responses", "completions", "chosen", "rejected", "all_generated_responses", "response", "output")
READS = frozenset(NAMES)


def parse(row: Row, score_field: str | None, warn: Warn) -> Draft:
    """A set without responses."""
    given = [name for name in NAMES if row.get(name) is not None]
    if len(given) > 1:
        raise RowError(Reason.PROMPTS_DIFFER, f"{' and '.join(given)} may each be the prompt; keep one")
    name = given[0] if given else "prompt"
    turns = prompt(fields.field(row, name), name, warn)
    if turns and turns[-1].role == "assistant":
        what = f"{name} ends with an assistant turn, so it is no prompt; data.layout=chat takes that turn as a response"
        raise RowError(Reason.BAD_ROLE_ORDER, what)
    for key in ANSWERS:
        if row.get(key) not in (None, "", [], {}):
            warn(Reason.UNUSED_FIELD, f"column '{key}' is not used: these are prompts alone", key)
    return Draft(turns, ())
