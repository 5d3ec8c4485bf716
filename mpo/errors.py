"""Errors that a user can mend: one line that says what, where and what to do instead."""

from __future__ import annotations

EXIT_CODE = 2
"""Exit status of every command for a user's mistake; anything else that fails is our bug."""


class UserError(Exception):
    """A mistake that the user can mend; printed as one line, never as a traceback.

    Args:
        what: what is wrong, e.g. ``"score is not a number: 'high'"``.
        where: a config key, ``file:line`` or row id; empty where there is none.
        remedy: what to do instead, in the imperative.
    """

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.remedy}" if self.remedy else line
        return " ".join(line.split())

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        # The default would rebuild from the rendered line and lose the parts between processes.
        return type(self), (self.what, self.where, self.remedy)


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run; ``where`` is the config key."""


class DataError(UserError, ValueError):
    """Data that cannot be used; ``where`` is ``file:line`` or a row id."""


class Stopped(BaseException):
    """The run was asked to stop; what was being built can be resumed. No library takes it for an error of its own."""
