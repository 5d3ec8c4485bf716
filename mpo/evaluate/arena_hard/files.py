"""Files of Arena-Hard's tool (arena-hard-auto) in both of its layouts: that of 2024 and that of 2025. No torch.

A question and its judgment have an ``uid`` since 2025, a ``question_id`` before.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mpo.errors import DataError, cut
from mpo.evaluate.questions import Answer, Question, check_questions

BASELINE_OF_2024 = "gpt-4-0314"
"""Judgments of 2024 do not name the baseline; the tool's settings had this one."""

CLEAR = 3
"""How often a clear verdict counts."""
LABELS = {
    **{"A>>B": (1.0, CLEAR), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, CLEAR)},
    **{"A<<B": (0.0, CLEAR), "A<B": (0.0, 1), "B=A": (0.5, 1), "B<A": (1.0, 1), "B<<A": (1.0, CLEAR)},
}
"""What a verdict is worth for A, and how often it counts."""


class Layout(Enum):
    """Which of the tool's layouts."""

    of_2024 = "2024"
    of_2025 = "2025"

    @property
    def key(self) -> str:
        """The field with a question's id."""
        return "uid" if self is Layout.of_2025 else "question_id"


@dataclass(frozen=True, slots=True)
class Game:
    """One look of the judge at both answers: its label (None without one), and whether A is the baseline's answer."""

    label: str | None
    baseline_first: bool


@dataclass(frozen=True, slots=True)
class Judgment:
    """What was judged about one question. ``games``: those that are there, of two."""

    question_id: str
    category: str
    games: tuple[Game, ...]
    judge: str
    baseline: str


def read_questions(path: Path) -> tuple[Layout, list[Question]]:
    """The questions of a question.jsonl; raises DataError for a file that is not there or is another one."""
    rows = list(_lines(path))
    layout = Layout.of_2025 if rows and "uid" in rows[0][1] else Layout.of_2024
    questions = []
    for where, row in rows:
        try:
            turns = [row["prompt"]] if layout is Layout.of_2025 else [turn["content"] for turn in row["turns"]]
            identity, category = row[layout.key], row.get("category", "")
            if not all(isinstance(text, str) for text in (*turns, identity, category)):
                raise TypeError
        except (KeyError, TypeError):
            what = f"no question of Arena-Hard ({layout.key} and {'prompt' if layout is Layout.of_2025 else 'turns'})"
            raise DataError(what, where, "give the tool's question.jsonl") from None
        questions.append(Question(identity, tuple(turns), category))
    check_questions(questions, path.name)
    return layout, questions


def write_answers(
    path: Path, layout: Layout, model: str, questions: Mapping[str, Question], answers: list[Answer]
) -> None:
    """The answers of one model as the tool reads them.

    Counts of a tokenizer of OpenAI's, which its style control and averages read, are not among them: the tool's
    ``add_markdown_info.py`` adds them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    make: Callable[[str, Question, Answer], dict[str, Any]] = _of_2025 if layout is Layout.of_2025 else _of_2024
    rows = (make(model, questions[one.question_id], one) for one in answers)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _of_2025(model: str, question: Question, one: Answer) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for turn, said in zip(question.turns, one.turns, strict=True):
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": {"answer": said}}]
    return {
        "uid": one.question_id,
        "ans_id": _identity(model, one),
        "model": model,
        "messages": messages,
        "tstamp": time.time(),
    }


def _of_2024(model: str, question: Question, one: Answer) -> dict[str, Any]:
    return {
        "question_id": one.question_id,
        "answer_id": _identity(model, one),
        "model_id": model,
        "choices": [{"index": 0, "turns": [{"content": said} for said in one.turns]}],
        "tstamp": time.time(),
    }


def _identity(model: str, one: Answer) -> str:
    return hashlib.blake2b(json.dumps([model, one.question_id, one.turns]).encode(), digest_size=11).hexdigest()


def read_judgments(path: Path) -> list[Judgment]:
    """Those of one model, in either layout.

    Raises:
        DataError: a line that is none, a question judged twice, several judges or models.
    """
    found: dict[str, Judgment] = {}
    judges: dict[str, None] = {}
    for where, row in _lines(path):
        one = _judgment(row, where)
        if one.question_id in found:
            what = f"question {one.question_id} is judged twice"
            raise DataError(what, where, "take one of the two judgments out")
        found[one.question_id] = one
        judges[f"{row.get('model')} by {one.judge}"] = None
    if len(judges) > 1:
        raise DataError(f"it holds {', '.join(judges)}", path.name, "give one model's judgments by one judge")
    return list(found.values())


def check_alike(judgments: Iterable[Judgment]) -> None:
    """Raise DataError where a category has several judges or baselines: a mean over them is no score."""
    named: dict[str, dict[str, None]] = {}
    for one in judgments:
        named.setdefault(one.category, {})[f"{one.judge} against {one.baseline}"] = None
    for category, several in named.items():
        if len(several) > 1:
            what = f"judgments by {' and by '.join(several)}"
            raise DataError(what, category or "judgments", "give those of one judge and one baseline")


def without_gaps(path: Path) -> int:
    """Take judgments with a missing game, and a line that a kill has cut, out of a file so that the tool asks again;
    returns how many are left."""
    if not path.exists():
        return 0
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            one = _judgment(json.loads(line), path.name)
        except (ValueError, DataError):
            continue
        if is_whole(one):
            kept.append(line)
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    return len(kept)


def is_whole(one: Judgment) -> bool:
    """Whether both games have a verdict."""
    return len(one.games) == 2 and all(game.label in LABELS for game in one.games)


def _judgment(row: Any, where: str) -> Judgment:
    try:
        identity = row["uid"] if "uid" in row else row["question_id"]
        games = [Game(game["score"], number == 0) for number, game in enumerate(row["games"][:2]) if game is not None]
        judge, category = row["judge"], row.get("category", "")
        baseline = row.get("baseline", BASELINE_OF_2024)
        texts = [identity, judge, category, baseline, *(game.label for game in games if game.label is not None)]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (KeyError, TypeError):
        what = f"no judgment of Arena-Hard: {cut(json.dumps(row), 80)}"
        raise DataError(what, where, "give a file of model_judgment/JUDGE") from None
    return Judgment(identity, category, tuple(games), judge, baseline)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", path.name, "correct the path") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"not JSON: {error}", where, "fix the line, or take it out") from None
        if not isinstance(row, dict):
            raise DataError("no object", where, "fix the line, or take it out")
        yield where, row
