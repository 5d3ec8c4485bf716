"""What a judge compares: each answer of the trained policy beside the baseline's to the same prompt. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpo.errors import DataError, cut
from mpo.evaluate.annotations.judgements import read_records
from mpo.evaluate.base import START, Samples
from mpo.evaluate.prompts import prompt_keys
from mpo.score.base import Item
from mpo.score.judge_prompt import conversation_text, response_text
from mpo.types import Message, Response, ResponseSet

TRAINED = "trained policy"
SHOWN = 60


@dataclass(frozen=True)
class Pair:
    """``item``: the conversation with the policy's answer. ``instruction``: the conversation as annotations have it.
    ``prompt``: what it is known by in every run."""

    prompt: str
    instruction: str
    item: Item
    baseline: Message

    @property
    def texts(self) -> tuple[str, str]:
        """The baseline's answer and the policy's, as a judge reads them."""
        return response_text(self.baseline), response_text(self.item.response)


@dataclass(frozen=True)
class Pairs:
    """At one temperature. ``policy``, ``baseline``: who answers, by names that tell other answers apart."""

    temperature: float
    policy: str
    baseline: str
    pairs: list[Pair]


@dataclass(frozen=True)
class Answers:
    """Of one model, from a file, by instruction."""

    file: str
    model: str
    by_instruction: Mapping[str, str]


def read_answers(path: str) -> Answers:
    """Answers in AlpacaEval's format of outputs: a JSON list of ``instruction``, ``output`` and ``generator``.

    Raises:
        DataError: a file or a record that cannot be used, several models, or two answers to one instruction.
    """
    found: dict[str, str] = {}
    models: dict[str, None] = {}
    for number, record in enumerate(read_records(str(Path(path).expanduser())), start=1):
        where = f"{path}:row {number}"
        instruction, output = (_text(record, field, where) for field in ("instruction", "output"))
        if found.setdefault(instruction.strip(), output) != output:
            raise DataError("an instruction that is answered otherwise before", where, "keep one answer to each")
        models[str(record.get("generator") or Path(path).name)] = None
    if len(models) > 1:
        raise DataError(f"answers of {len(models)} models: {', '.join(models)}", path, "give a file for one model")
    return Answers(path, next(iter(models)), found)


def pairs_of(samples: Samples, answers: Answers | None) -> Pairs:
    """Response i of the policy beside response i of the starting policy, or (``answers``) that of a file.

    Raises:
        DataError: samples of other prompts, or prompts to which the file has no answer.
    """
    if [one.id for one in samples.start] != [one.id for one in samples.policy]:
        raise DataError("samples of other prompts", "evaluate", "sample both policies again")
    pairs, missing = [], []
    keys = prompt_keys(samples.policy)
    for key, before, after in zip(keys, samples.start, samples.policy, strict=True):
        instruction = instruction_of(after)
        others: Iterable[Message]
        if answers is None:
            others = [_answer(one) for one in before.responses]
        elif (text := answers.by_instruction.get(instruction.strip())) is not None:
            others = [Message("assistant", text)] * len(after.responses)
        else:
            missing.append(instruction)
            continue
        for other, mine in zip(others, after.responses, strict=True):
            pairs.append(Pair(key, instruction, Item(after.prompt, _answer(mine), after.tools), other))
    if missing and answers is not None:
        what = f"no answer to {len(missing)} of {len(samples.policy)} held-out prompts, as {cut(missing[0], SHOWN)!r}"
        raise DataError(what, answers.file, "add them, or set evaluate.prompts to those that it has")
    at = f"at T={samples.temperature:g}"
    policy = f"{TRAINED} {_digest(pair.texts[1] for pair in pairs)} {at}"
    start = f"{START} {_digest(pair.texts[0] for pair in pairs)} {at}"
    return Pairs(samples.temperature, policy, start if answers is None else answers.model, pairs)


def instruction_of(one: ResponseSet) -> str:
    """The prompt as annotations have it: its only turn's text, or all turns under their roles."""
    (first, *rest) = one.prompt
    if not rest and one.tools is None and first.is_plain and first.content:
        return first.content
    return conversation_text(one.prompt, one.tools)


def _answer(response: Response) -> Message:
    """The answer alone, without the thought before it."""
    return replace(response.message, reasoning=None)


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]


def _text(record: Any, field: str, where: str) -> str:
    value = record.get(field) if isinstance(record, Mapping) else None
    if not isinstance(value, str):
        raise DataError(f"no {field} that is text", where, f"add {field}, or take the record out")
    return value
