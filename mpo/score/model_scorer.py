"""What scorers that load a model of their own have in common. No torch until they score."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import ClassVar

from mpo.score.base import Scorer


class ModelScorer(Scorer):
    """Keeps its model as ``_loaded`` from the first call on, and counts warnings in ``_counts``."""

    replicated: ClassVar[bool] = True

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
