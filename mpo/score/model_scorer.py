"""What scorers that load a model of their own have in common. No torch until they score."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from functools import cached_property
from typing import ClassVar

from mpo.config.training import Precision
from mpo.errors import ConfigError
from mpo.score.base import Scorer

MOST_PARAMETERS = 10**13


class ModelScorer(Scorer):
    """Keeps its model as ``_loaded`` from the first call on, and counts warnings in ``_counts``.

    Attributes:
        path: folder or hub name of the model.
        parameters: of the model, for the plan; None where nobody has said.
        precision: of its weights.

    Raises:
        ConfigError: a number of parameters out of range.
    """

    path: str
    parameters: int | None
    precision: Precision

    replicated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.parameters is not None and not 1 <= self.parameters <= MOST_PARAMETERS:
            what, remedy = f"{self.parameters} is out of range", f"give 1 to {MOST_PARAMETERS:,}, or null"
            raise ConfigError(what, "score.parameters", remedy)

    @abstractmethod
    def tokens_read(self, prompt: int, response: int, responses: int) -> int:
        """Tokens that its model reads to score a set, for the plan.

        Args:
            prompt: tokens of the prompt.
            response: of each response.
            responses: of the set.
        """

    def take_warnings(self) -> dict[str, int]:
        """By reason, inputs since the last call that were cut."""
        found = dict(self._counts)
        self._counts.clear()
        return found

    def close(self) -> None:
        """Drop the model, and give its GPU memory back."""
        if (loaded := self.__dict__.pop("_loaded", None)) is not None:
            loaded.release()

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter()
