"""Responses tokenised in batches, with the ids that ``chat.render_response`` gives.

Rendering each response with its whole conversation tokenises the prompt K times. Instead each is tokenised after an
anchor, the shortest end of a rendered prompt that tokenises alike on its own, and the anchor's ids are cut off. Rows
where that isn't sure to be the same, and batches where a sample shows a difference, take the full way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpo.data.chat import (
    SENTINEL,
    chat_format,
    encode,
    prompt_text,
    raw_ids,
    render_response,
    special_tokens,
    stripped,
)
from mpo.types import Message, ResponseSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE_SETS = 2
"""Sets of each batch whose responses are also rendered in full."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of a rendered prompt; ``end_ids`` are those of its ids that every prompt ends with."""

    text: str
    ids: list[int]
    end_ids: list[int]


def render_responses(
    tokenizer: PreTrainedTokenizerBase, sets: Sequence[ResponseSet], prompt_ids: Sequence[Sequence[int]]
) -> list[list[list[int]]]:
    """Ids of every response of every set; ``prompt_ids`` are its rendered prompts. Raises as ``render_prompt``."""
    form, anchor = chat_format(tokenizer), find_anchor(tokenizer)
    if form.strips is None or anchor is None:
        return [_in_full(tokenizer, one) for one in sets]
    bodies = [form.lead + stripped(each.text, form.strips) + form.end for one in sets for each in one.responses]
    cut_ids = iter(_after_anchor(tokenizer, anchor, bodies))
    rendered = []
    for one, prompt in zip(sets, prompt_ids, strict=True):
        rows = [next(cut_ids) for _ in one.responses]
        usual_end = list(prompt[-len(anchor.end_ids) :]) == anchor.end_ids
        rendered.append(rows if usual_end else _in_full(tokenizer, one))
    if any(_in_full(tokenizer, sets[i]) != rendered[i] for i in range(min(SAMPLE_SETS, len(sets)))):
        return [_in_full(tokenizer, one) for one in sets]
    return rendered


def _after_anchor(tokenizer: PreTrainedTokenizerBase, anchor: Anchor, bodies: Sequence[str]) -> list[list[int]]:
    """Ids of each body after the anchor; of the body alone where the boundary merges."""
    size = len(anchor.ids)
    rows = raw_ids(tokenizer, [anchor.text + body for body in bodies])
    merged = [index for index, ids in enumerate(rows) if ids[:size] != anchor.ids]
    alone = dict(zip(merged, raw_ids(tokenizer, [bodies[index] for index in merged]), strict=True))
    return [alone[index] if index in alone else ids[size:] for index, ids in enumerate(rows)]


def find_anchor(tokenizer: PreTrainedTokenizerBase) -> Anchor | None:
    """The anchor of the tokenizer's template; None where prompts have no common end."""
    text = prompt_text(tokenizer, [Message("user", SENTINEL)])
    other = prompt_text(tokenizer, [Message("user", "Another one?")])
    ids, other_ids = encode(tokenizer, [text, other])
    common = 0
    while common < min(len(ids), len(other_ids)) and ids[-1 - common] == other_ids[-1 - common]:
        common += 1
    if common == 0:
        return None
    # A special token never merges with what comes before it, so the text from there on tokenises alike.
    starts = {text.rindex(token) for token in special_tokens(tokenizer) if token in text}
    for start in sorted(starts, reverse=True):
        (alone,) = raw_ids(tokenizer, [text[start:]])
        if ids[-len(alone) :] == alone:
            return Anchor(text[start:], alone, ids[-min(common, len(alone)) :])
    (alone,) = raw_ids(tokenizer, [text])
    return Anchor(text, alone, ids[-min(common, len(alone)) :])


def _in_full(tokenizer: PreTrainedTokenizerBase, one: ResponseSet) -> list[list[int]]:
    return [render_response(tokenizer, one.prompt, each.text) for each in one.responses]
