"""Whether a set can teach a loss anything; a set that cannot is skipped and counted by this reason."""

from __future__ import annotations

from collections.abc import Sequence


def no_signal_reason(
    scores: Sequence[float], bins: Sequence[int], contrasts: bool, needs_sides: bool = True
) -> str | None:
    """Why a set carries no signal, or None where it is usable.

    Args:
        scores: K scores.
        bins: K bins of the partition; responses in bin -1 count for nothing.
        contrasts: ``Loss.contrasts``; a loss that contrasts nothing needs one kept response and no more.
        needs_sides: ``Loss.needs_sides``; False for a loss that contrasts scores and reads no bins.

    Returns:
        ``"one_response"``, ``"equal_scores"``, ``"empty_side"``, the first that holds, or None.
    """
    kept = [score for score, number in zip(scores, bins, strict=True) if number >= 0]
    used = {number for number in bins if number >= 0}
    if not contrasts:
        return None if kept else "empty_side"
    if len(scores) < 2 or (len(kept) < 2 and not needs_sides):
        return "one_response"
    if len(set(scores)) == 1 or (len(kept) > 1 and len(set(kept)) == 1):
        return "equal_scores"
    if needs_sides and len(used) < 2:
        return "empty_side"
    return None
