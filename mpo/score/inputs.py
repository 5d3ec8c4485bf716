"""What a reward model reads: a conversation rendered by its own chat template, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jinja2

from mpo.data.chat import chat_format, encode, render
from mpo.errors import ConfigError, DataError
from mpo.score.base import Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 120
"""Characters of a template's complaint that are shown."""


def conversation_ids(tokenizer: PreTrainedTokenizerBase, item: Item, bos: int) -> list[int]:
    """Ids of the prompt with the response as its last turn, to the end of what the template writes.

    Args:
        bos: BOS tokens at the beginning, where the template or the tokenizer writes any.

    Raises:
        ConfigError: the tokenizer has no usable chat template, or no BOS although two are wanted.
        DataError: the template refuses the conversation.
    """
    try:
        chat_format(tokenizer)
    except ConfigError as error:
        remedy = "name one that fits: score.chat_template"
        raise ConfigError(f"of the reward model: {error.what}", "score.path", remedy) from error
    try:
        text = render(tokenizer, [*item.prompt, item.response], item.tools, generation=False)
        ids = encode(tokenizer, [text])[0]
    except jinja2.TemplateError as error:
        roles = ", ".join(turn.role for turn in (*item.prompt, item.response))
        what = f"the reward model's chat template refuses a conversation ({roles}): {str(error)[:SHOWN]}"
        remedy = "leave such prompts out, or name another template: score.chat_template"
        raise DataError(what, "score.path", remedy) from error
    written = leading(ids, tokenizer.bos_token_id)
    if not written and bos > 1:
        raise ConfigError("neither template nor tokenizer writes a BOS", "score.bos", "set it to 1")
    return ids[:1] * bos + ids[written:] if written else ids


def leading(ids: Sequence[int], bos_id: int | None) -> int:
    """How many tokens at the beginning are BOS."""
    count = 0
    while bos_id is not None and count < len(ids) and ids[count] == bos_id:
        count += 1
    return count


def find_last(ids: Sequence[int], pattern: Sequence[int]) -> int | None:
    """Where ``pattern`` begins the last time that it is in ``ids``; None where it is not."""
    for start in range(len(ids) - len(pattern), -1, -1):
        if list(ids[start : start + len(pattern)]) == list(pattern):
            return start
    return None
