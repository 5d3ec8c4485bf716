"""What is wrong with a row: one record for every reader, and its count by reason. No torch, no numpy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Reason(StrEnum):
    """Why a row, a response or a score is not used as it stands."""

    BROKEN_JSON = "broken_json"
    NOT_AN_OBJECT = "not_an_object"
    NOT_UNICODE = "not_unicode"
    MISSING_FIELD = "missing_field"
    PROMPT_NOT_TEXT = "prompt_not_text"
    EMPTY_PROMPT = "empty_prompt"
    BAD_MESSAGE = "bad_message"
    BAD_ROLE_ORDER = "bad_role_order"
    PROMPTS_DIFFER = "prompts_differ"
    NO_RESPONSES = "no_responses"
    RESPONSE_NOT_TEXT = "response_not_text"
    BAD_MARK = "bad_mark"
    SCORE_NOT_NUMBER = "score_not_number"
    NAN_SCORE = "nan_score"
    SCORE_COUNT = "score_count"
    DUPLICATE_ID = "duplicate_id"
    NO_TOKENS = "no_tokens"
    PROMPT_TOO_LONG = "prompt_too_long"
    TEMPLATE_REFUSED = "template_refused"
    # Warnings from here on: the set is used, with what the message says.
    NO_SCORE = "no_score"
    ONE_RESPONSE = "one_response"
    EQUAL_SCORES = "equal_scores"
    EMPTY_RESPONSE = "empty_response"
    UNSCORED_RESPONSE = "unscored_response"
    OVERALL_TEN_MENDED = "overall_ten_mended"
    OVERALL_TEN_UNCLEAR = "overall_ten_unclear"
    SPECIAL_TOKEN = "special_token"


Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. ``error``: the whole set is skipped. ``warning``: the set is used, as the message says.

    ``where`` is ``file:line``, ``file:row N`` (both from 1) or ``set ID``; ``id`` is empty where it isn't known.
    """

    where: str
    id: str
    reason_code: Reason
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.where}: {self.reason_code}: {self.message}"


class RowError(Exception):
    """A row that cannot become a response set; the reader turns it into a ``Problem``."""

    def __init__(self, reason_code: Reason, message: str) -> None:
        super().__init__(message)
        self.reason_code, self.message = reason_code, message


class ProblemCounts:
    """An ``on_problem`` that counts by severity and reason."""

    def __init__(self) -> None:
        self.errors: Counter[Reason] = Counter()
        self.warnings: Counter[Reason] = Counter()

    def __call__(self, problem: Problem) -> None:
        (self.errors if problem.severity == "error" else self.warnings)[problem.reason_code] += 1
