"""Questions of a benchmark, how they are answered, and the answers. No torch: the command line reads questions."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mpo.cache.artifacts import write_text
from mpo.config.limits import TEMPERATURE, TOKENS
from mpo.errors import ConfigError, DataError
from mpo.evaluate.prompts import prompt_keys
from mpo.types import Message, ResponseSet

ANSWERS_FILE = "answers.jsonl"
GREEDY = 0.0
"""The temperature at which the likeliest token is taken, whatever the seed."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question, of one or several turns of the user.

    Attributes:
        id: unique within the benchmark.
        turns: what the user says; each turn after the first follows the answer to the one before.
        category: where the benchmark groups its questions.
        system: a system message before them.
        temperature: at which this question is answered whatever the decoding says.
    """

    id: str
    turns: tuple[str, ...]
    category: str = ""
    system: str | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", tuple(self.turns))  # JSON has lists

    def conversation(self, answers: Sequence[str]) -> tuple[Message, ...]:
        """The messages up to the turn of the user that follows ``answers``."""
        messages = [] if self.system is None else [Message("system", self.system)]
        for turn, answer in zip(self.turns, answers, strict=False):
            messages += [Message("user", turn), Message("assistant", answer)]
        return (*messages, Message("user", self.turns[len(answers)]))


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a benchmark's questions are answered; at temperature 0 the likeliest tokens, the same for every seed."""

    temperature: float = GREEDY
    top_p: float = 1.0
    max_new_tokens: int = 2048
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Answer:
    """One policy's answer to one question.

    Attributes:
        question_id: of the :class:`Question`.
        turns: an answer for each turn of the question, without special tokens and without a thought that
            ``model.thinking`` marks. Empty where the policy said nothing, or the turn could not be asked (counted).
        temperature: at which it was drawn: the question's own, else the decoding's.
        seed: one of the decoding's; at temperature 0 all seeds have the same answer.
        finished: whether a stop token ended every turn, rather than the limit of tokens.
    """

    question_id: str
    turns: tuple[str, ...]
    temperature: float
    seed: int
    finished: bool


Run = tuple[float, int]
"""Temperature and seed of a whole set of answers."""


def by_run(answers: Iterable[Answer]) -> dict[Run, list[Answer]]:
    """The answers at each temperature with each seed, in their order."""
    found: dict[Run, list[Answer]] = defaultdict(list)
    for each in answers:
        found[each.temperature, each.seed].append(each)
    return dict(found)


def decodings(
    temperatures: Sequence[float], top_p: float, max_new_tokens: int, seeds: Sequence[int], key: str
) -> list[Decoding]:
    """A decoding for each temperature, with all seeds, or the first alone at temperature 0.

    Args:
        key: config key below which these options stand.

    Raises:
        ConfigError: a value out of range or said twice.
    """
    for name, values in (("temperatures", temperatures), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            what = "is empty" if not values else f"{list(values)} says a value twice"
            raise ConfigError(what, f"{key}.{name}", "give each value once")
    for temperature in temperatures:
        if temperature != GREEDY and temperature not in TEMPERATURE:
            remedy = f"give 0 (the likeliest tokens) or a number {TEMPERATURE}"
            raise ConfigError(f"{temperature:g} is out of range", f"{key}.temperatures", remedy)
    if not 0 < top_p <= 1:
        raise ConfigError(f"{top_p:g} is out of range", f"{key}.top_p", "give a share in (0, 1]")
    if max_new_tokens not in TOKENS:
        raise ConfigError(f"{max_new_tokens} is out of range", f"{key}.max_new_tokens", f"give a number {TOKENS}")
    return [
        Decoding(float(each), top_p, max_new_tokens, tuple(seeds[:1] if each == GREEDY else seeds))
        for each in temperatures
    ]


def question_keys(questions: Sequence[Question]) -> dict[str, str]:
    """What each question's prompt is known by in every run, by the question's id."""
    sets = [ResponseSet(one.id, one.conversation([""] * (len(one.turns) - 1)), ()) for one in questions]
    return {one.id: key for one, key in zip(questions, prompt_keys(sets), strict=True)}


def check_questions(questions: Sequence[Question], where: str) -> None:
    """Raise DataError for questions that cannot be asked, in the file ``where``."""
    if not questions:
        raise DataError("it has no questions", where, "name the benchmark's question file")
    seen: set[str] = set()
    for one in questions:
        if one.id in seen:
            raise DataError(f"two questions have the id {one.id}", where, "give each question once")
        seen.add(one.id)
        if not one.turns or not all(turn.strip() for turn in one.turns):
            raise DataError(f"question {one.id} has an empty turn", where, "give its text, or take it out")
        if one.temperature is not None and not (math.isfinite(one.temperature) and one.temperature >= 0):
            what = f"question {one.id} has the temperature {one.temperature}"
            raise DataError(what, where, "give a number from 0 on")


def write_answers(folder: Path, answers: Iterable[Answer]) -> None:
    """Save them in a stage's directory, a line each."""
    lines = (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in answers)
    write_text(folder / ANSWERS_FILE, "".join(lines))


def read_answers(folder: Path) -> list[Answer]:
    """What :func:`write_answers` wrote."""
    with (folder / ANSWERS_FILE).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Answer(**{**row, "turns": tuple(row["turns"])}) for row in rows]
