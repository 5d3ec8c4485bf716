"""The one place that renders chats to token ids, through the tokenizer's chat template.

Three rules hold for every template: the prompt's ids are a prefix of prompt + response (they are tokenised on their
own, a merge across the boundary is undone); BOS comes once, where the template writes it or the tokenizer adds it; a
response ends with its end-of-turn token, without what the template writes after that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import jinja2

from mpo.errors import ConfigError
from mpo.types import Message, Response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What a tokenizer's template does, learnt from renderings of a sentinel text.

    ``lead`` and ``tail``: what it writes before and after a response; ``end``: the part of the tail that belongs to
    the response, up to the end-of-turn token ``end_id``. ``strips``: which sides of a response it trims (left, right),
    None where it changes responses in another way, or their prompt. ``bos_id``: a BOS that the tokenizer adds by
    itself, else None.
    """

    template: str
    bos_id: int | None
    lead: str
    tail: str
    end: str
    end_id: int
    strips: tuple[bool, bool] | None


_formats: WeakKeyDictionary[PreTrainedTokenizerBase, ChatFormat] = WeakKeyDictionary()


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None
) -> list[int]:
    """Ids of a prompt, generation prompt included; ``tools`` as in :class:`mpo.types.ResponseSet`.

    Raises ``ConfigError`` for a tokenizer without a usable template, ``jinja2.TemplateError`` for messages that the
    template refuses.
    """
    return encode(tokenizer, [prompt_text(tokenizer, messages, tools)])[0]


def render_response(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], response: Response | str, tools: str | None = None
) -> list[int]:
    """Ids of the assistant's turn (or its text) after ``messages``, to append to ``render_prompt``'s; the last is
    end-of-turn.

    They are the tokens of the full rendering where the prompt's ids are a prefix of that; where the boundary merges
    the response is tokenised alone. Raises as ``render_prompt``.
    """
    response = Response(response) if isinstance(response, str) else response
    before = prompt_text(tokenizer, messages, tools)
    body = response_body(tokenizer, messages, response, tools, before)
    prompt_ids, joint_ids = encode(tokenizer, [before, before + body])
    if joint_ids[: len(prompt_ids)] == prompt_ids:
        return joint_ids[len(prompt_ids) :]
    return raw_ids(tokenizer, [body])[0]


def response_body(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], response: Response, tools: str | None, before: str
) -> str:
    """What the template writes for a response after the rendered prompt ``before``, up to its end of turn.

    Raises:
        jinja2.TemplateError: the template refuses the response, or renders the conversation in such a way that its
            tool calls or reasoning cannot be separated from the prompt.
    """
    form = chat_format(tokenizer)
    full = render(tokenizer, [*messages, response.message], tools, generation=False)
    if full.startswith(before) and full.endswith(form.tail):
        return full[len(before) : len(full) - len(form.tail)] + form.end
    if not (response.tool_calls or response.reasoning):
        return response.text + form.end
    if not full.startswith(before):
        what = "tool calls or reasoning of a response cannot be rendered: its prompt is rendered otherwise before it"
        raise jinja2.TemplateRuntimeError(what)
    rest = full[len(before) :].rstrip()  # a turn that ends in a call may have an end of its own
    last = max((rest.rindex(token) + len(token) for token in special_tokens(tokenizer) if token in rest), default=0)
    return rest if last == len(rest) else rest + form.end


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a response: the template's end-of-turn, and the tokenizer's EOS where that is another.

    A model's ``generation_config`` may name more: the sampler joins both.
    """
    ends = {chat_format(tokenizer).end_id}
    if tokenizer.eos_token_id is not None:
        ends.add(int(tokenizer.eos_token_id))
    return tuple(sorted(ends))


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None) -> str:
    """The rendered prompt before tokenisation, generation prompt included."""
    chat_format(tokenizer)
    return render(tokenizer, messages, tools, generation=True)


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the prompts of another day are others; raises as ``render``."""

    def on(day: str) -> str:
        return render(tokenizer, [Message("user", SENTINEL)], None, generation=True, strftime_now=lambda form: day)

    return on("one day") != on("another")


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of rendered texts: no special tokens but those written in them, and a BOS where the tokenizer wants one."""
    bos_id = chat_format(tokenizer).bos_id
    rows = raw_ids(tokenizer, texts)
    return [ids if bos_id is None or ids[:1] == [bos_id] else [bos_id, *ids] for ids in rows]


def raw_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of texts, nothing added."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    rows: list[list[int]] = encoded["input_ids"]
    return rows


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """All special tokens with their ids, those that have no name among them (such as <|eot_id|>)."""
    return {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The tokenizer's format, learnt at the first use; raises ``ConfigError`` where there is no usable template."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        what = "the tokenizer has no chat template, or several without a default"
        raise ConfigError(what, "model.chat_template", "name one that fits the model") from None
    known = _formats.get(tokenizer)
    if known is None or known.template != template:
        known = _formats[tokenizer] = _learn(tokenizer, template)
    return known


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: str | None,
    *,
    generation: bool,
    **functions: Callable[[str], str],
) -> str:
    """The template's text, with other ``functions`` than transformers'; what it raises, whatever the kind, becomes a
    ``jinja2.TemplateError``."""
    schemas = None if tools is None else json.loads(tools)
    turns = [as_turn(message) for message in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tools=schemas, tokenize=False, add_generation_prompt=generation, **functions
            )
        )
    except jinja2.TemplateError:
        raise
    except Exception as error:  # an expression in the template: a division by zero, say
        raise jinja2.TemplateRuntimeError(f"{type(error).__name__}: {error}") from error


def as_turn(message: Message) -> Mapping[str, Any]:
    """A message as templates read it; they have three names for reasoning."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        turn |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), message.reasoning)
    if message.tool_calls is not None:
        turn["tool_calls"] = json.loads(message.tool_calls)
    named = {"tool_call_id": message.tool_call_id, "name": message.name}
    return turn | {key: value for key, value in named.items() if value is not None}


def _learn(tokenizer: PreTrainedTokenizerBase, template: str) -> ChatFormat:
    user = Message("user", SENTINEL)
    try:
        before = render(tokenizer, [user], None, generation=True)
        both, padded = (
            render(tokenizer, [user, Message("assistant", text)], None, generation=False)
            for text in (SENTINEL, f"\n {SENTINEL} \n")
        )
    except jinja2.TemplateError as error:
        remedy = "fix the template, or name another"
        raise ConfigError(
            f"the chat template cannot render a user and an assistant turn: {error}", "model.chat_template", remedy
        ) from None
    for role, rendered, times in (("user", before, 1), ("assistant", both, 2)):
        if rendered.lower().count(SENTINEL) < times:
            what = f"the chat template leaves out what the {role} says"
            raise ConfigError(what, "model.chat_template", "fix the template, or name another")
    # Gemma 4 asks for a response with an empty thought before it, and renders the response without: no lead then.
    lead, found, tail = both[len(before) :].partition(SENTINEL) if both.startswith(before) else ("", "", "")
    if not found and both.count(SENTINEL) > 1:
        tail = both.rpartition(SENTINEL)[2]
    strips = None
    for sides in ((False, False), (True, True), (True, False), (False, True)):
        if found and padded == before + lead + stripped(f"\n {SENTINEL} \n", sides) + tail:
            strips = sides
    end, end_id = _end(tokenizer, tail)
    return ChatFormat(template, _own_bos(tokenizer), lead, tail, end, end_id, strips)


def stripped(text: str, strips: tuple[bool, bool]) -> str:
    """``text`` without white space on the sides that are marked."""
    text = text.lstrip() if strips[0] else text
    return text.rstrip() if strips[1] else text


def _end(tokenizer: PreTrainedTokenizerBase, tail: str) -> tuple[str, int]:
    """The tail up to its first special token; EOS where it has none."""
    found = [(tail.index(token), token, index) for token, index in special_tokens(tokenizer).items() if token in tail]
    if found:
        start, token, index = min(found)
        return tail[:start] + token, index
    if tokenizer.eos_token is None:
        what = "neither the chat template nor the tokenizer has an end-of-turn token"
        raise ConfigError(what, "model.chat_template", "name a template that fits the model")
    return str(tokenizer.eos_token), int(tokenizer.eos_token_id)


def _own_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    bos_id = tokenizer.bos_token_id
    if bos_id is None or tokenizer("x")["input_ids"][:1] != [bos_id]:
        return None
    return int(bos_id)
