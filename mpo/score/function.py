"""A Python function as scorer."""

from __future__ import annotations

import importlib
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mpo.errors import ConfigError, DataError
from mpo.failures.user_code import user_code
from mpo.types import Message


class Scorer(Protocol):
    """Scores the responses of one set."""

    def __call__(self, prompt: Sequence[Message], texts: Sequence[str]) -> list[float]:
        """One score for each of ``texts``; larger is better."""


@dataclass(frozen=True)
class FunctionScorer:
    """Calls ``function(prompt_text, response_text, **options) -> float`` of an importable module.

    ``prompt_text`` is the last user turn. ``function`` is ``package.module.name``; naming one runs its module's code,
    so it comes from the configuration only, never from data.
    """

    function: str
    options: dict[str, Any] = field(default_factory=dict)

    def resolve(self) -> Callable[..., float]:
        """The function itself.

        Raises:
            ConfigError: nothing importable has that name, or it cannot be called.
        """
        module_name, _, name = self.function.rpartition(".")
        try:
            function = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError, ValueError) as error:
            remedy = "give package.module.function of an installed module"
            raise ConfigError(f"cannot import '{self.function}': {error}", "score.function", remedy) from error
        except (Exception, SystemExit) as error:  # the user's module runs, and may fail in any way
            what = f"importing '{self.function}' raised {type(error).__name__}: {error}"
            raise ConfigError(what, "score.function", "fix the module") from error
        if not callable(function):
            raise ConfigError(f"'{self.function}' is not a function", "score.function", "name a function")
        return function  # type: ignore[no-any-return]

    def check(self) -> None:
        """Raise ConfigError unless the function is there and takes a prompt, a response and the options."""
        function = self.resolve()
        try:
            inspect.signature(function).bind("prompt", "response", **self.options)
        except TypeError as error:
            remedy = "it is called as function(prompt, response, **score.options)"
            raise ConfigError(
                f"{self.function} does not take what it gets: {error}", "score.options", remedy
            ) from error
        except ValueError:  # of some built-in functions Python cannot tell the signature
            return

    def __call__(self, prompt: Sequence[Message], texts: Sequence[str]) -> list[float]:
        function = self.resolve()
        question = next(turn.content for turn in reversed(prompt) if turn.role == "user")
        with user_code(self.function, self.function, "score"):
            scores = [function(question, text, **self.options) for text in texts]
        return [self._number(score) for score in scores]

    def _number(self, score: Any) -> float:
        """A score as a float; numpy's and torch's scalars are numbers too."""
        try:
            value = score.item() if hasattr(score, "item") else score
        except (ValueError, RuntimeError):  # more than one number
            value = score
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise DataError(f"{self.function} returned {score!r}, not a number", "score", "return a finite float")
        return float(value)
