"""Held-out answers compared by judges: LLMs in both orders, or reward models' scores."""

from mpo.evaluate.judged_win_rate.measure import JudgedWinRate

__all__ = ["JudgedWinRate"]
