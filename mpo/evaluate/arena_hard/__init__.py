"""Arena-Hard: its own tool run, its two scores, its files."""

from mpo.evaluate.arena_hard.measure import ArenaHard

__all__ = ["ArenaHard"]
