"""What a partition is: scores of one response set to bins, and the shape that the bins have."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Integral
from typing import Any, ClassVar

from mpo.errors import ConfigError, DataError

Similarities = Sequence[Sequence[float]]
"""[K, K]: inner products of the unit embeddings of a set's K responses."""


class Shape(Enum):
    """Structure of the bins, which a loss accepts or refuses (``Loss.fits``)."""

    everything = "everything"  # one bin, nothing dropped
    pair = "pair"  # one response in bin 0, one in bin 1
    two = "two"  # accepted (0) and rejected (1), any number each
    ordered = "ordered"  # any number of bins, best first


@dataclass(frozen=True)
class Partition(ABC):
    """Rule that turns the scores of one response set into bins."""

    shape: ClassVar[Shape]
    reads_marks: ClassVar[bool] = False
    """Whether it reads the data's own marks, and so refuses sets without."""
    needs_embeddings: ClassVar[bool] = False
    """Whether it reads how alike the responses are, and so is asked by ``assign_embedded``; its options ``path`` and
    ``revision`` name the encoder that embeds them."""

    def __call__(
        self,
        scores: Sequence[float],
        accepted: Sequence[bool | None] | None = None,
        draw: int = 0,
        similarities: Similarities | None = None,
    ) -> list[int]:
        """Bins of one set: 0 best, larger is worse, -1 dropped; no gaps, but ``Mean`` and its like may accept none.

        Args:
            scores: K finite scores, larger is better.
            accepted: the data's own marks, K of them; only ``Given`` reads them.
            draw: non-negative integer, a hash of seed and set id; only ``BestVsRandom`` reads it.
            similarities: for a partition that ``needs_embeddings``.

        Raises:
            DataError: no scores, a score that is not finite, or marks or similarities that do not fit.
            ConfigError: the rule gives something else.
        """
        if not scores:
            raise DataError("a set without responses has no bins", remedy="leave it out before the partition")
        for index, score in enumerate(scores):
            if not math.isfinite(score):
                raise DataError(f"score {score} of response {index} is not finite", remedy="fix or drop the row")
        if self.needs_embeddings:
            if similarities is None or not len(similarities) == len(scores) == len(similarities[0]):
                what = f"{type(self).__name__} needs the similarities of {len(scores)} responses to each other"
                raise DataError(what, remedy="pass as many rows as scores, of as many numbers")
            bins = self.assign_embedded(scores, similarities)
        else:
            bins = self.assign(scores, accepted, draw)
        if not isinstance(bins, Sequence) or len(bins) != len(scores) or not all(map(_is_bin, bins)):
            what = f"{type(self).__name__} gave {bins!r} for {len(scores)} scores"
            remedy = "let assign return a list of a whole number each: 0 best, larger is worse, -1 dropped"
            raise ConfigError(what, "partition", remedy)
        return bins

    def keeps(self, responses: int) -> int:
        """How many of ``responses`` it puts into bins, to be forwarded: with distinct scores, alternating marks and
        embeddings at right angles."""
        scores = [float(responses - k) for k in range(responses)]
        alike = [[float(i == k) for i in range(responses)] for k in range(responses)] if self.needs_embeddings else None
        bins = self(scores, [k % 2 == 0 for k in range(responses)], similarities=alike)
        return sum(which >= 0 for which in bins)

    def assign_embedded(self, scores: Sequence[float], similarities: Similarities) -> list[int]:
        """In place of ``assign`` for a partition that ``needs_embeddings``."""
        raise NotImplementedError(f"{type(self).__name__} needs embeddings, but has no assign_embedded")

    @abstractmethod
    def assign(self, scores: Sequence[float], accepted: Sequence[bool | None] | None, draw: int) -> list[int]:
        """The rule itself, on checked scores; see ``__call__``."""


def _is_bin(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) >= -1


def best_first(scores: Sequence[float]) -> list[int]:
    """Indices from the best score to the worst; of tied scores the earlier comes first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
