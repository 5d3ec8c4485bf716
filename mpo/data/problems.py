"""What is wrong with a row: one record for every reader, and its count by reason. No torch, no numpy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from mpo.errors import DataError, cut, printable

MESSAGE = 280
"""Most characters of a problem's message: what it quotes comes from the data, and may be of any size."""
FIELDS = 20
"""Fields that are counted by their own name; beyond these a file is hardly one that people wrote."""


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
    BAD_TOOLS = "bad_tools"
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
    TEMPLATE_IGNORES = "template_ignores"
    # Warnings from here on: the set is used, with what the message says.
    NO_SCORE = "no_score"
    ONE_RESPONSE = "one_response"
    EQUAL_SCORES = "equal_scores"
    EMPTY_RESPONSE = "empty_response"
    UNSCORED_RESPONSE = "unscored_response"
    OVERALL_TEN_CORRECTED = "overall_ten_corrected"
    OVERALL_TEN_UNCLEAR = "overall_ten_unclear"
    EQUAL_TEXTS = "equal_texts"
    UNUSED_FIELD = "unused_field"
    TEMPLATE_CHANGES = "template_changes"
    SPECIAL_TOKEN = "special_token"


Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. ``error``: the whole set is skipped. ``warning``: the set is used, as the message says.

    ``where`` is ``file:line``, ``file:row N`` (both from 1) or ``set ID``; ``id`` is empty where it isn't known.
    ``field``: what it is counted by beside the reason, where a field's name says more.
    """

    where: str
    id: str
    reason_code: Reason
    message: str
    severity: Severity = "error"
    field: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", cut(printable(self.message), MESSAGE))
        object.__setattr__(self, "field", cut(printable(self.field), 40))

    def __str__(self) -> str:
        return f"{cut(printable(self.where), MESSAGE)}: {self.reason_code}: {self.message}"

    @property
    def label(self) -> str:
        """What it is counted as."""
        return f"{self.reason_code} ({self.field})" if self.field else str(self.reason_code)


class RowError(Exception):
    """A row that cannot become a response set; the reader turns it into a ``Problem``."""

    def __init__(self, reason_code: Reason, message: str) -> None:
        super().__init__(message)
        self.reason_code, self.message = reason_code, message


class ProblemCounts:
    """An ``on_problem`` that counts by severity and label, which is the reason and sometimes a field; the first problem
    of each label is kept."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.first: dict[str, Problem] = {}

    def __call__(self, problem: Problem) -> None:
        label = problem.label
        if problem.field and label not in self.first and len(self.first) >= FIELDS:
            label = f"{problem.reason_code} (other fields)"
        self.first.setdefault(label, problem)
        (self.errors if problem.severity == "error" else self.warnings)[label] += 1

    def unusable_sets(self, sets: int, beginning: str) -> DataError:
        """The error that too many of ``sets`` cannot be used, in the words of the first problem of the commonest kind.

        Args:
            beginning: what the message says first.
        """
        first = self.first[self.errors.most_common(1)[0][0]]
        reasons = ", ".join(f"{label} {count}" for label, count in self.errors.most_common())
        what = f"{cut(first.message, 160)} ({self.errors.total()} of {sets} sets cannot be used: {reasons})"
        remedy = "fix these sets, or raise data.max_skipped_share"
        if first.reason_code is Reason.PROMPT_TOO_LONG:
            remedy = "raise data.max_prompt_tokens, or data.max_skipped_share"
        elif first.reason_code in (Reason.TEMPLATE_REFUSED, Reason.TEMPLATE_IGNORES):
            remedy = "change these sets, or name another model.chat_template"
        return DataError(f"{beginning}: {what}", first.where, remedy)
