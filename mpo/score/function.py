"""A Python function as scorer."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpo.errors import ConfigError
from mpo.score.base import Item, Scorer


@dataclass(frozen=True)
class FunctionScorer(Scorer):
    """Calls ``function(prompt_text, response_text, **options) -> float`` of an importable module.

    ``prompt_text`` is the last user turn. ``function`` is ``package.module.name``; naming one runs its module's code,
    so it comes from the configuration only, never from data. ``immediate``: it takes no time and loads nothing, so that
    it needs no process of its own.
    """

    function: str
    options: dict[str, Any] = field(default_factory=dict)
    immediate: bool = False

    @property
    def source(self) -> str:
        """The function."""
        return self.function

    @property
    def only_for(self) -> str | None:
        """What the function says by an attribute of this name."""
        return getattr(self.resolve(), "only_for", None)

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

    def score(self, items: Sequence[Item]) -> list[float]:
        """See :meth:`Scorer.score`."""
        function = self.resolve()
        return [
            function(next(turn.content for turn in reversed(item.prompt) if turn.role == "user"),
                     item.response.content, **self.options)
            for item in items
        ]  # fmt: skip
