"""Responses rendered and tokenised in batches, with the ids that ``chat.render_response`` gives each of them.

A template that is proved to insert texts as they are is not asked for every response. And rendering each response with
its whole conversation would tokenise the prompt K times: instead each is tokenised after an anchor, the shortest end of
a rendered prompt that tokenises alike on its own, and the anchor's ids are cut off. What isn't sure to give the same is
rendered, or tokenised, in full; nothing depends on the other sets of a batch.
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
    response_body,
    special_tokens,
    stripped,
)
from mpo.data.verbatim import inserts_verbatim
from mpo.types import Message, ResponseSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    prompts = [prompt_text(tokenizer, one.prompt, one.tools) for one in sets]
    bodies = [render_bodies(tokenizer, one, before) for one, before in zip(sets, prompts, strict=True)]
    return body_ids(tokenizer, prompts, prompt_ids, bodies)


def is_proved(tokenizer: PreTrainedTokenizerBase, one: ResponseSet) -> bool:
    """Whether the set's responses are known to be rendered as they are, without asking the template."""
    plain = all(each.reasoning is None and each.tool_calls is None for each in one.responses)
    plain = plain and one.tools is None and all(turn.is_plain for turn in one.prompt)
    return plain and inserts_verbatim(tokenizer, tuple(turn.role for turn in one.prompt))


def render_bodies(tokenizer: PreTrainedTokenizerBase, one: ResponseSet, before: str) -> list[str]:
    """What the template writes for each response after the rendered prompt ``before``; raises as
    ``chat.response_body``."""
    form = chat_format(tokenizer)
    if form.strips is not None and is_proved(tokenizer, one):
        return [form.lead + stripped(each.text, form.strips) + form.end for each in one.responses]
    return [response_body(tokenizer, one.prompt, each, one.tools, before) for each in one.responses]


def body_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    prompt_ids: Sequence[Sequence[int]],
    bodies: Sequence[Sequence[str]],
) -> list[list[list[int]]]:
    """Ids of each set's rendered responses, given its rendered prompt as text and ids."""
    anchor = find_anchor(tokenizer)
    starts: list[Sequence[int]] = []
    short: list[str] = []
    long: list[str] = []
    for before, ids, rows in zip(prompts, prompt_ids, bodies, strict=True):
        if anchor is not None and list(ids[-len(anchor.end_ids) :]) == anchor.end_ids:
            starts.append(anchor.ids)
            short += [anchor.text + body for body in rows]
        else:
            starts.append(ids)
            long += [before + body for body in rows]
    short_ids, long_ids = iter(raw_ids(tokenizer, short)), iter(encode(tokenizer, long))
    rendered: list[list[list[int]]] = []
    merged: list[tuple[int, int]] = []
    for index, (start, rows) in enumerate(zip(starts, bodies, strict=True)):
        joint = short_ids if anchor is not None and start is anchor.ids else long_ids
        made = [next(joint) for _ in rows]
        merged += [(index, k) for k, ids in enumerate(made) if ids[: len(start)] != list(start)]
        rendered.append([ids[len(start) :] for ids in made])
    # Where the boundary merges the response is tokenised alone.
    alone = raw_ids(tokenizer, [bodies[index][k] for index, k in merged])
    for (index, k), ids in zip(merged, alone, strict=True):
        rendered[index][k] = ids
    return rendered


def find_anchor(tokenizer: PreTrainedTokenizerBase) -> Anchor | None:
    """The anchor of the tokenizer's template; None where prompts have no common end, or one that may tokenise
    otherwise behind another text."""
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
            return _sure(tokenizer, Anchor(text[start:], alone, ids[-min(common, len(alone)) :]))
    (alone,) = raw_ids(tokenizer, [text])
    return _sure(tokenizer, Anchor(text, alone, ids[-min(common, len(alone)) :]))


def _sure(tokenizer: PreTrainedTokenizerBase, anchor: Anchor) -> Anchor | None:
    """The anchor if prompts end with all of it, from a special token on. Less is enough for byte-pair encoding: tokens
    are the encoding of their text if each two neighbours are, so the last of the prompt decides what may follow."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    pairs = backend is not None and type(backend.model).__name__ == "BPE"
    fixed = anchor.end_ids == anchor.ids and anchor.text.startswith(tuple(special_tokens(tokenizer)))
    return anchor if pairs or fixed else None
