"""A scorer's answers, looked at before anything relies on them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

from mpo.errors import DataError, cut
from mpo.failures.user_code import user_code
from mpo.score.base import Item, Scorer


def checked_scores(scorer: Scorer, items: Sequence[Item]) -> list[float]:
    """``scorer``'s scores of ``items``, at most ``items_at_once`` in a call, those of similar length together.

    Raises:
        ConfigError: the scorer's code raised something.
        DataError: it returned another count, or something that is no finite number.
    """
    order = sorted(range(len(items)), key=lambda i: _length(items[i]))
    scores = [math.nan] * len(items)
    for start in range(0, len(order), scorer.items_at_once):
        chosen = order[start : start + scorer.items_at_once]
        with user_code(scorer.source, _name(scorer), "score"):
            values = scorer.score([items[i] for i in chosen])
        if not isinstance(values, Sequence) or len(values) != len(chosen):
            count = len(values) if isinstance(values, Sequence) else f"a {type(values).__name__}, not a list"
            raise DataError(
                f"{_name(scorer)} returned {count} for {len(chosen)} items", "score", "return one score per item"
            )
        for i, value in zip(chosen, values, strict=True):
            scores[i] = _number(value, scorer)
    return scores


def check_scorer(scorer: Scorer) -> None:
    """What the scorer itself finds wrong, before anything is sampled for it; raises ConfigError."""
    with user_code(scorer.source, _name(scorer), "score"):
        scorer.check()


def _name(scorer: Scorer) -> str:
    return scorer.source if scorer.source != type(scorer).__module__ else type(scorer).__name__


def _length(item: Item) -> int:
    return sum(len(text) for turn in (*item.prompt, item.response) for text in turn.texts)


def _number(score: Any, scorer: Scorer) -> float:
    """A score as a float; numpy's and torch's scalars are numbers too."""
    try:
        value = score.item() if hasattr(score, "item") else score
    except (ValueError, RuntimeError):  # more than one number
        value = score
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise DataError(
            f"{_name(scorer)} returned {cut(repr(score), 80)}, not a number", "score", "return a finite float"
        )
    return float(value)
