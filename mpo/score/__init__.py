"""Scorers: what turns a prompt and a response into a score."""

from mpo.score.base import Item, Scorer
from mpo.score.function import FunctionScorer

__all__ = ["FunctionScorer", "Item", "Scorer"]
