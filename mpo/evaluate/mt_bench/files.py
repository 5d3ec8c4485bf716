"""MT-Bench's files in FastChat's formats: questions and reference answers in, answers and judgments out. No torch."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mpo.cache.artifacts import write_text
from mpo.errors import ConfigError, DataError
from mpo.evaluate.questions import Answer, Question, check_questions

TEMPERATURES = {
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0, "stem": 0.1,
    "humanities": 0.1,
}  # fmt: skip
"""FastChat's, by category; of another category :data:`OTHERS`."""
OTHERS = 0.7
WITH_REFERENCE = frozenset({"math", "reasoning", "coding"})
"""Categories whose answers a judge sees beside a reference answer."""
MOST_TURNS = 2

T = TypeVar("T")


def read_questions(path: str) -> list[Question]:
    """Questions of a question.jsonl, each at FastChat's temperature for its category, or its own.

    Raises:
        ConfigError: the file is not there.
        DataError: a line that is no question of one or two turns.
    """

    def question(row: Mapping[str, Any]) -> Question:
        turns, category = row["turns"], str(row.get("category", ""))
        if not isinstance(turns, list) or not 1 <= len(turns) <= MOST_TURNS or not all(map(_is_text, turns)):
            raise ValueError(f"turns are to be a list of 1 to {MOST_TURNS} texts")
        temperature = row.get("required_temperature", TEMPERATURES.get(category, OTHERS))
        return Question(str(row["question_id"]), tuple(turns), category, None, float(temperature))

    found = _rows(path, "question_file", question)
    check_questions(found, Path(path).name)
    return found


def read_references(path: str | None, questions: Sequence[Question]) -> dict[str, tuple[str, ...]]:
    """Reference answers by question, from an answer file such as reference_answer/gpt-4.jsonl.

    Raises:
        ConfigError: the file is not there, or none is named though questions need one.
        DataError: a line that is no answer; a question without reference, or with one of fewer turns.
    """

    def answer(row: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        turns = row["choices"][0]["turns"]
        if not isinstance(turns, list) or not all(map(_is_text, turns)):
            raise ValueError("turns are to be a list of texts")
        return str(row["question_id"]), tuple(turns)

    needing = [one for one in questions if one.category in WITH_REFERENCE]
    if path is None:
        if needing:
            what = f"has no value, but {len(needing)} questions ({', '.join(sorted(WITH_REFERENCE))}) need references"
            raise ConfigError(what, "measure.references", "give the path of reference_answer/gpt-4.jsonl")
        return {}
    found = dict(_rows(path, "references", answer))
    for one in needing:
        if len(found.get(one.id, ())) < len(one.turns):
            what = f"question {one.id} ({one.category}) has no reference for all of its turns"
            raise DataError(what, Path(path).name, "give the reference answers of these questions")
    return {one.id: found[one.id] for one in needing}


def read_prompts(path: str) -> dict[str, dict[str, str]]:
    """FastChat's judge_prompts.jsonl by name: ``system_prompt`` and ``prompt_template`` of each.

    Raises:
        ConfigError: the file is not there.
        DataError: a line that is no prompt.
    """

    def prompt(row: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        kept = {key: row[key] for key in ("system_prompt", "prompt_template")}
        if not all(map(_is_text, kept.values())):
            raise ValueError("system_prompt and prompt_template are to be texts")
        return str(row["name"]), kept

    return dict(_rows(path, "prompts", prompt))


def write_model_answers(folder: Path, model: str, answers: Sequence[Answer]) -> None:
    """``model_answer/MODEL.jsonl``: of each question the answers of all seeds as its choices."""
    by_question: dict[str, list[Answer]] = {}
    for each in answers:
        by_question.setdefault(each.question_id, []).append(each)
    rows = []
    for question, given in by_question.items():
        choices = [{"index": i, "turns": list(each.turns)} for i, each in enumerate(given)]
        mark = hashlib.sha256(json.dumps([question, model, choices]).encode()).hexdigest()[:22]
        answer = {"question_id": _number(question), "answer_id": mark, "model_id": model, "choices": choices}
        rows.append({**answer, "tstamp": time.time()})
    _write(folder / "model_answer" / f"{model}.jsonl", rows)


def write_judgments(folder: Path, judge: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """``model_judgment/JUDGE_single.jsonl``; ``rows`` have all of FastChat's fields but the time."""
    judgments = [{**row, "question_id": _number(row["question_id"]), "tstamp": time.time()} for row in rows]
    _write(folder / "model_judgment" / f"{judge}_single.jsonl", judgments)


def _rows(path: str, option: str, read: Callable[[Mapping[str, Any]], T]) -> list[T]:
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        what = f"'{path}' cannot be read: {error.strerror or error}"
        raise ConfigError(what, f"measure.{option}", "give the path of FastChat's file") from None
    except UnicodeDecodeError:
        raise DataError("not UTF-8", file.name, "give FastChat's file, unchanged") from None
    return list(_read_lines(lines, file.name, read))


def _read_lines(lines: Sequence[str], name: str, read: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found = read(row)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(what, f"{name}:{number}", "give FastChat's file, unchanged") from None
        yield found


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _number(question: str) -> int | str:
    """FastChat's ids are numbers."""
    return int(question) if question.isdecimal() else question


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
