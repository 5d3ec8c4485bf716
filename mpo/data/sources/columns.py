"""Columns that every layout may have beside its own: system and tools are used, others that matter are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mpo.data.problems import Reason, RowError
from mpo.data.sources.fields import Draft, Row, Warn
from mpo.data.sources.messages import checked_prompt, content, json_list, json_text, prompt
from mpo.types import Message

ID = ("id", "prompt_id")
SYSTEM = ("system", "system_prompt")
TOOLS = "tools"
COMMON = frozenset({*ID, *SYSTEM, TOOLS})
UNUSED = frozenset(
    {"input", "history", "context", "documents", "functions", "messages", "chat_template_kwargs",
     "image", "images", "video", "videos", "audio", "audios",
     "weight", "weights", "sample_weight", "margin", "scores", "ratings", "rewards", "score_chosen", "score_rejected",
     "chosen_score", "rejected_score", "chosen-rating", "rejected-rating", "chosen_rating", "rejected_rating"}
)  # fmt: skip
"""Columns that say something of what should be trained, so that leaving them out is worth a word; others (source,
metadata, dates) are not."""


def with_columns(draft: Draft, row: Row, reads: frozenset[str], warn: Warn) -> Draft:
    """``draft`` with the row's system turn and tools, its prompt checked.

    Args:
        reads: the columns that the layout has read.
    """
    turns = _with_system(draft.prompt, row, warn)
    checked_prompt(turns)
    for name in () if reads.issuperset(row) else sorted(UNUSED & row.keys() - reads):
        if row[name] not in (None, "", [], {}):
            warn(Reason.UNUSED_FIELD, f"column '{name}' is not used", name)
    if turns is draft.prompt and row.get(TOOLS) is None:
        return draft
    tools = json_list(row.get(TOOLS), TOOLS, Reason.BAD_TOOLS)
    return replace(draft, prompt=turns, tools=None if tools is None else json_text(tools, TOOLS, Reason.BAD_TOOLS))


def check_prompt_column(row: Row, turns: Sequence[Message], warn: Warn) -> tuple[Message, ...]:
    """The prompt of whole conversations, given their ``turns`` before the response: what the column ``prompt`` says
    must be among them, or comes before them.

    Raises:
        RowError: messages in ``prompt`` that are not those of the conversation (prompts_differ).
    """
    whole = tuple(turns)
    if row.get("prompt") in (None, "", []):
        return whole
    given = prompt(row["prompt"], "prompt", warn)
    if whole and whole[0].role in ("assistant", "tool"):  # a response of several turns, all but the last alike
        return given + whole
    if isinstance(row["prompt"], str):
        said = given[0].content.split()
        if not any(turn.role == "user" and turn.content.split() == said for turn in whole):
            message = "prompt is not a user turn of the conversation; the conversation is used"
            warn(Reason.UNUSED_FIELD, message, "prompt")
        return whole
    if given == whole or (given[0].role == "system" and given[1:] == whole):
        return given
    if whole[:1] and whole[0].role == "system" and given == whole[1:]:
        return whole
    raise RowError(Reason.PROMPTS_DIFFER, f"prompt and the conversation {difference(given, whole)}")


def difference(a: Sequence[Message], b: Sequence[Message]) -> str:
    """Where two conversations part, in words."""
    for number, (one, other) in enumerate(zip(a, b, strict=False), start=1):
        if one != other:
            shown = [f"{turn.role} {turn.content[:40]!r}" for turn in (one, other)]
            same = " (other fields differ)" if shown[0] == shown[1] else ""
            return f"differ from turn {number} on: {shown[0]} and {shown[1]}{same}"
    return f"have {len(a)} and {len(b)} turns before the response"


def _with_system(turns: tuple[Message, ...], row: Row, warn: Warn) -> tuple[Message, ...]:
    if row.get(SYSTEM[0]) is None and row.get(SYSTEM[1]) is None:
        return turns
    given = {name: content(row[name], name, warn) for name in SYSTEM if row.get(name) is not None}
    said = {name: value for name, value in given.items() if value.strip()}
    if not said:
        return turns
    if turns and turns[0].role == "system":
        said["system turn"] = turns[0].content
    if len({value.strip() for value in said.values()}) > 1:
        raise RowError(Reason.PROMPTS_DIFFER, f"{' and '.join(said)} say different things; keep one")
    if "system turn" in said:
        return turns
    return (Message("system", next(iter(said.values()))), *turns)
