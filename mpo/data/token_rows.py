"""From a few response sets to one Arrow batch of token ids: rendering, limits, problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import jinja2
import numpy as np
import pyarrow

from mpo.data.chat import chat_format, encode, prompt_text, special_tokens
from mpo.data.fast_render import body_ids, is_proved, render_bodies
from mpo.data.left_out import left_out_of_prompt, left_out_of_response
from mpo.data.problems import Problem, Reason
from mpo.data.thoughts import Thoughts
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
        ("uncounted", pyarrow.list_(pyarrow.int32())),
        ("score_names", pyarrow.list_(pyarrow.string())),
        ("scores", pyarrow.list_(pyarrow.list_(pyarrow.float64()))),  # by name, then response
        ("accepted", pyarrow.list_(pyarrow.bool_())),
    ]
)


Marks = tuple[str, str] | None
"""What begins and ends a thought."""


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
    sets: Sequence[ResponseSet], tokenizer: PreTrainedTokenizerBase, limits: Limits, marks: Marks = None
) -> tuple[pyarrow.RecordBatch, list[Problem]]:
    """The batch of the usable sets, in order, and what was found on the way.

    ``marks``: of thoughts that are not to count, see :attr:`mpo.data.tokens.TokenizedSet.uncounted`.

    ``token_ids`` of a response must be those of ``tokenizer``; they are taken as they are, whatever the template would
    make of its text.
    """
    problems: list[Problem] = []
    rendered = _bodies(*usable_prompts(sets, tokenizer, limits.max_prompt_tokens, problems), tokenizer, problems)
    responses_of = body_ids(
        tokenizer,
        [each.prompt for each in rendered],
        [each.ids for each in rendered],
        [each.bodies for each in rendered],
    )
    special = frozenset(special_tokens(tokenizer).values())
    end_id = chat_format(tokenizer).end_id
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    thoughts = None if marks is None else Thoughts(tokenizer, *marks)
    for each_set, encoded in zip(rendered, responses_of, strict=True):
        one, prompt = each_set.one, each_set.ids
        room = limits.max_tokens - len(prompt)
        whole = _whole(one, encoded)
        uncounted = [0 if thoughts is None else thoughts.tokens(ids, prompt) for ids in whole]
        if not all(whole):
            message = f"response {whole.index([])} is empty and unfinished: no token to train on"
            problems.append(Problem(f"set {one.id}", one.id, Reason.NO_TOKENS, message))
            continue
        silent = next((k for k, ids in enumerate(whole) if uncounted[k] >= len(ids[:room])), None)
        if silent is not None:
            message = f"response {silent} has no token after its thought, to train on (sample.empty=redraw draws again)"
            problems.append(Problem(f"set {one.id}", one.id, Reason.NO_TOKENS, message))
            continue
        for index, ids in enumerate(whole):
            response = one.responses[index]  # calls and reasoning come with special tokens of the template's
            drawn_end = response.token_ids is not None and response.finished
            inner = ids[:-1] if drawn_end or ids[-1] == end_id else ids
            if not (response.tool_calls or response.reasoning) and not special.isdisjoint(inner):
                message = f"response {index} holds a special token inside its text; kept"
                problems.append(Problem(f"set {one.id}", one.id, Reason.SPECIAL_TOKEN, message, "warning"))
        columns["id"].append(one.id)
        columns["prompt_ids"].append(prompt)
        columns["response_ids"].append([ids[:room] for ids in whole])
        columns["truncated"].append(
            [len(ids) > room or not each.finished for ids, each in zip(whole, one.responses, strict=True)]
        )
        columns["uncounted"].append(uncounted)
        names = sorted({name for response in one.responses for name in response.score_names})
        columns["score_names"].append(names)
        columns["scores"].append([[response.score_by(name) for response in one.responses] for name in names])
        columns["accepted"].append([response.accepted for response in one.responses])
    return pyarrow.RecordBatch.from_pydict(columns, SCHEMA), problems


def _whole(one: ResponseSet, encoded: Iterable[Sequence[int]]) -> list[list[int]]:
    """Ids of the set's responses: those drawn as they are, the others in turn from ``encoded``."""
    texts = iter(encoded)
    whole = []
    for each in one.responses:
        if each.token_ids is not None:
            whole.append(list(each.token_ids))
        else:
            ids = list(next(texts))
            # A response that sampling cut off has no end of turn: training it to stop there would be wrong.
            whole.append(ids if each.finished else ids[:-1])
    return whole


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


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A set, its prompt as text and ids, and what those of its responses are rendered as that were not drawn."""

    one: ResponseSet
    prompt: str
    ids: list[int]
    bodies: list[str]


def usable_prompts(
    sets: Sequence[ResponseSet], tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int, problems: list[Problem]
) -> tuple[list[ResponseSet], list[str], list[list[int]]]:
    """The sets whose prompts can be used, with those as text and ids."""
    rendered: list[tuple[ResponseSet, str]] = []
    for one in sets:
        try:
            before = prompt_text(tokenizer, one.prompt, one.tools)
        except jinja2.TemplateError as error:
            message = f"the chat template refuses {_refused_part(tokenizer, one)}: {error}"
            problems.append(Problem(f"set {one.id}", one.id, Reason.TEMPLATE_REFUSED, message))
            continue
        found = list(left_out_of_prompt(tokenizer, one, before))
        problems += found
        if all(problem.severity == "warning" for problem in found):
            rendered.append((one, before))
    ids = encode(tokenizer, [before for _, before in rendered])
    kept = []
    for (one, before), prompt_ids in zip(rendered, ids, strict=True):
        if len(prompt_ids) <= max_prompt_tokens:
            kept.append((one, before, prompt_ids))
        else:
            message = f"the prompt has {len(prompt_ids)} tokens, more than max_prompt_tokens {max_prompt_tokens}"
            problems.append(Problem(f"set {one.id}", one.id, Reason.PROMPT_TOO_LONG, message))
    return [one for one, _, _ in kept], [before for _, before, _ in kept], [each for _, _, each in kept]


def _bodies(
    sets: Sequence[ResponseSet],
    prompts: Sequence[str],
    prompt_ids: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
) -> list[_Rendered]:
    """The sets whose responses can be used."""
    kept = []
    for one, before, ids in zip(sets, prompts, prompt_ids, strict=True):
        texts = replace(one, responses=tuple(each for each in one.responses if each.token_ids is None))
        try:
            bodies = render_bodies(tokenizer, texts, before)
        except jinja2.TemplateError as error:
            message = f"the chat template refuses a response: {error}"
            problems.append(Problem(f"set {one.id}", one.id, Reason.TEMPLATE_REFUSED, message))
            continue
        found: list[Problem] = []
        if bodies and not is_proved(tokenizer, texts):
            indices = [index for index, each in enumerate(one.responses) if each.token_ids is None]
            for index, body in zip(indices, bodies, strict=True):
                found += left_out_of_response(tokenizer, one, index, before, body)
        problems += found
        if all(problem.severity == "warning" for problem in found):
            kept.append(_Rendered(one, before, ids, bodies))
    return kept


def _refused_part(tokenizer: PreTrainedTokenizerBase, one: ResponseSet) -> str:
    """What of a refused prompt it is that the template refuses: system turns, where it takes the rest."""
    if one.prompt[0].role != "system":
        return "the prompt"
    try:
        prompt_text(tokenizer, one.prompt[1:], one.tools)
    except jinja2.TemplateError:
        return "the prompt"
    return "system turns (put their text before that of the first user turn)"
