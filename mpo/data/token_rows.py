"""From a few response sets to one Arrow batch of token ids: rendering, limits, problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jinja2
import numpy as np
import pyarrow

from mpo.data.chat import chat_format, encode, prompt_text, special_tokens
from mpo.data.problems import Problem, Reason
from mpo.data.quick import render_responses
from mpo.errors import ConfigError
from mpo.types import ResponseSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("prompt_ids", pyarrow.list_(pyarrow.int32())),
        ("response_ids", pyarrow.list_(pyarrow.list_(pyarrow.int32()))),
        ("truncated", pyarrow.list_(pyarrow.bool_())),
        ("scores", pyarrow.list_(pyarrow.float64())),
        ("accepted", pyarrow.list_(pyarrow.bool_())),
    ]
)


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_prompt_tokens`` for a prompt, ``max_tokens`` for a prompt with one response."""

    max_prompt_tokens: int
    max_tokens: int

    def __post_init__(self) -> None:
        if not 0 < self.max_prompt_tokens < self.max_tokens:
            what = (
                f"max_prompt_tokens {self.max_prompt_tokens} leaves no response token in max_tokens {self.max_tokens}"
            )
            raise ConfigError(what, "data.max_prompt_tokens", f"give a number from 1 to {max(1, self.max_tokens - 1)}")


class Digest(Protocol):
    """A hash of ``hashlib``."""

    def update(self, data: bytes, /) -> None: ...


def tokenize_rows(
    sets: Sequence[ResponseSet], tokenizer: PreTrainedTokenizerBase, limits: Limits
) -> tuple[pyarrow.RecordBatch, list[Problem]]:
    """The batch of the usable sets, in order, and what was found on the way."""
    problems: list[Problem] = []
    kept, prompt_ids = _prompts(sets, tokenizer, limits, problems)
    special = frozenset(special_tokens(tokenizer).values())
    end_id = chat_format(tokenizer).end_id
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for one, prompt, responses in zip(kept, prompt_ids, render_responses(tokenizer, kept, prompt_ids), strict=True):
        room = limits.max_tokens - len(prompt)
        # A response that sampling cut off has no end of turn: training it to stop there would be wrong.
        whole = [ids if each.finished else ids[:-1] for ids, each in zip(responses, one.responses, strict=True)]
        if not all(whole):
            message = f"response {whole.index([])} is empty and unfinished: no token to train on"
            problems.append(Problem(f"set {one.id}", one.id, Reason.NO_TOKENS, message))
            continue
        for index, ids in enumerate(whole):
            inner = ids[:-1] if ids[-1] == end_id else ids
            if not special.isdisjoint(inner):
                message = f"response {index} holds a special token inside its text; kept"
                problems.append(Problem(f"set {one.id}", one.id, Reason.SPECIAL_TOKEN, message, "warning"))
        columns["id"].append(one.id)
        columns["prompt_ids"].append(prompt)
        columns["response_ids"].append([ids[:room] for ids in whole])
        columns["truncated"].append(
            [len(ids) > room or not each.finished for ids, each in zip(whole, one.responses, strict=True)]
        )
        columns["scores"].append([response.score for response in one.responses])
        columns["accepted"].append([response.accepted for response in one.responses])
    return pyarrow.RecordBatch.from_pydict(columns, SCHEMA), problems


def update_digest(digest: Digest, batch: pyarrow.RecordBatch) -> None:
    """Add a batch's content (not its memory layout) to a hash."""
    for column in batch.columns:
        values = column
        while pyarrow.types.is_list(values.type):
            digest.update(np.diff(values.offsets.to_numpy()).tobytes())
            values = values.flatten()
        if pyarrow.types.is_string(values.type):
            digest.update("\0".join(values.to_pylist()).encode())
        else:
            digest.update(values.is_valid().to_numpy(zero_copy_only=False).tobytes())
            filled = values.fill_null(False if pyarrow.types.is_boolean(values.type) else 0)
            digest.update(filled.to_numpy(zero_copy_only=False).tobytes())


def _prompts(
    sets: Sequence[ResponseSet], tokenizer: PreTrainedTokenizerBase, limits: Limits, problems: list[Problem]
) -> tuple[list[ResponseSet], list[list[int]]]:
    rendered: list[ResponseSet] = []
    texts: list[str] = []
    for one in sets:
        try:
            texts.append(prompt_text(tokenizer, one.prompt))
            rendered.append(one)
        except jinja2.TemplateError as error:
            message = f"the chat template refuses the prompt: {error}"
            problems.append(Problem(f"set {one.id}", one.id, Reason.TEMPLATE_REFUSED, message))
    kept: list[ResponseSet] = []
    kept_ids: list[list[int]] = []
    for one, ids in zip(rendered, encode(tokenizer, texts), strict=True):
        if len(ids) <= limits.max_prompt_tokens:
            kept.append(one)
            kept_ids.append(ids)
        else:
            message = f"the prompt has {len(ids)} tokens, more than max_prompt_tokens {limits.max_prompt_tokens}"
            problems.append(Problem(f"set {one.id}", one.id, Reason.PROMPT_TOO_LONG, message))
    return kept, kept_ids
