"""Whether a chat template inserts texts as they are, whatever they say: then a response need not be rendered to know
how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import jinja2

from mpo.data.chat import ChatFormat, chat_format, render, stripped
from mpo.data.opaque import Opaque, compiled
from mpo.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLES = ("one", "\n two \n", "\"'\\<>&%s{{x}}{% y %}{# #}é\u2028\U0001f642", "<think>a</think>b", " ")

_proved: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[ChatFormat, dict[tuple[str, ...], bool]]] = (
    WeakKeyDictionary()
)


def inserts_verbatim(tokenizer: PreTrainedTokenizerBase, roles: tuple[str, ...]) -> bool:
    """Whether after any prompt of turns with these ``roles``, texts all, any response is rendered as the tokenizer's
    ``ChatFormat`` has it: lead, the text (trimmed where ``strips`` says so), tail.

    Proved by a rendering in which texts cannot be looked at, so that the same pieces are written in the same order for
    others; what the pieces are is compared for a few texts.
    """
    form = chat_format(tokenizer)
    known = _proved.get(tokenizer)
    if known is None or known[0] is not form:
        known = _proved[tokenizer] = (form, {})
    if roles not in known[1]:
        known[1][roles] = _looks_at_no_text(tokenizer, form, roles) and all(
            _is_as_expected(tokenizer, form, roles, text) for text in EXAMPLES
        )
    return known[1][roles]


def _looks_at_no_text(tokenizer: PreTrainedTokenizerBase, form: ChatFormat, roles: Sequence[str]) -> bool:
    turns = [{"role": role, "content": Opaque(f" {number} ")} for number, role in enumerate((*roles, "assistant"))]
    try:
        template = _compiled(form.template)
        for messages, generation in ((turns[:-1], True), (turns, False)):
            template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=generation,
                **tokenizer.special_tokens_map,
            )  # fmt: skip
    except Exception:  # the template looks at a text, or does what this rendering does not know of
        return False
    return True


def _is_as_expected(tokenizer: PreTrainedTokenizerBase, form: ChatFormat, roles: Sequence[str], text: str) -> bool:
    if form.strips is None:
        return False
    prompt = [Message(role, f" {number}\n{text} ") for number, role in enumerate(roles)]
    try:
        before = render(tokenizer, prompt, None, generation=True)
        full = render(tokenizer, [*prompt, Message("assistant", text)], None, generation=False)
    except jinja2.TemplateError:
        return False
    return full == before + form.lead + stripped(text, form.strips) + form.tail


_compiled = lru_cache(8)(compiled)
