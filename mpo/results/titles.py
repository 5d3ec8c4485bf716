"""What people read of an estimate's identity. No torch."""

from __future__ import annotations

from mpo.evaluate.base import START
from mpo.evaluate.records import About


def title(about: About) -> str:
    """``win_rate at T=1, judge testbed, round 2``; a baseline other than the starting policy is named."""
    metric, split, temperature, round_, judge, baseline = about
    at = "" if temperature is None else f" at T={temperature:g}"
    more = ["" if split == "heldout" else f", {split}", "" if judge is None else f", judge {judge}"]
    more.append("" if baseline in (None, START) else f", against {baseline}")
    return f"{metric}{at}{''.join(more)}" + ("" if round_ is None else f", round {round_}")
