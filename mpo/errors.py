"""Errors that a user can fix: one line that says what, where and what to do instead."""

from __future__ import annotations

import re
from typing import ClassVar

EXIT_CODE = 2
"""Exit status of every command for a user's mistake and for what a user can repair, such as a full disk."""
FAILURE_CODE = 1
"""Exit status for everything else that fails: a process that was killed, or our bug."""


LONGEST = 380
"""Most characters of a message; a command puts its name in front."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def printable(text: str) -> str:
    """``text`` with what a terminal would obey or cannot show (controls, lone surrogates) as escapes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], text)


def first_line(error: BaseException) -> str:
    """What an error says in its first line that is not empty; its class's name where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters of ``text``, an ellipsis last where there were more."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


class UserError(Exception):
    """A mistake that the user can fix; printed as one line, never as a traceback.

    Args:
        what: what is wrong, e.g. ``"score is not a number: 'high'"``.
        where: a config key, ``file:line`` or row id; empty where there is none.
        remedy: what to do instead, in the imperative.
    """

    exit_code: ClassVar[int] = EXIT_CODE

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        what, where, remedy = _shortened([self.what, self.where, self.remedy], LONGEST)
        line = f"{where}: {what}" if where else what
        return f"{line}; {remedy}" if remedy else line

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        # The default would rebuild from the rendered line and lose the parts between processes.
        return type(self), (self.what, self.where, self.remedy)


def _shortened(parts: list[str], most: int) -> list[str]:
    """``parts`` on one line each and printable, the longest of them cut in the middle until all have ``most``."""
    parts = [printable(" ".join(part.split())) for part in parts]
    each = most
    while sum(min(len(part), each) for part in parts) > most:
        each -= 1
    return [part if len(part) <= each else f"{part[: each - each // 3 - 1]}…{part[-(each // 3) :]}" for part in parts]


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run; ``where`` is the config key."""


class DataError(UserError, ValueError):
    """Data that cannot be used; ``where`` is ``file:line`` or a row id."""


class ProcessError(UserError):
    """A process that ended without a word, killed by the kernel say: one line too, but nobody's mistake."""

    exit_code = FAILURE_CODE


class StageFailed(RuntimeError):
    """A stage's process ended by a bug of ours; the message is its traceback and where its log lies."""


class Stopped(BaseException):
    """The run was asked to stop; what was being built can be resumed. No library takes it for an error of its own."""
