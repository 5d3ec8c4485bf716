"""Scorers: what turns a prompt and a response into a score."""

from mpo.score.function import FunctionScorer, Scorer

__all__ = ["FunctionScorer", "Scorer"]
