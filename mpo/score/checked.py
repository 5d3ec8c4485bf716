"""A scorer's answers, looked at before anything relies on them."""

from __future__ import annotations

import contextlib
import math
import numbers
import re
from collections.abc import Iterator, Sequence
from typing import Any

from mpo.errors import DataError, UserError, cut
from mpo.failures.user_code import user_code
from mpo.score.base import Item, Scorer

_SCORE_KEY = re.compile(r"\bscore(?=[.=]|$)")


def scores_of_sets(scorer: Scorer, sets: Sequence[Sequence[Item]]) -> list[float]:
    """``scorer``'s scores of all responses of ``sets``, in order; raises as :func:`checked_scores` does."""
    if scorer.compares:
        return [score for items in sets for score in checked_scores(scorer, items)]
    return checked_scores(scorer, [item for items in sets for item in items])


def checked_scores(scorer: Scorer, items: Sequence[Item]) -> list[float]:
    """``scorer``'s scores of ``items``, at most ``items_at_once`` in a call, those of similar length together.

    A scorer that compares gets all of them in one call, in their order.

    Raises:
        ConfigError: the scorer's code raised something.
        DataError: it returned another count, or something that is no finite number.
    """
    order = list(range(len(items)))
    if not scorer.compares:
        order.sort(key=lambda i: _length(items[i]))
    at_once = max(len(items), 1) if scorer.compares else scorer.items_at_once
    scores = [math.nan] * len(items)
    for start in range(0, len(order), at_once):
        chosen = order[start : start + at_once]
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


def check_spread(scorer: Scorer, name: str, scores: Sequence[float], texts_differ: bool, split: str) -> str | None:
    """What is wrong with scores that are all the same, which no loss can learn from; None where they are not.

    Args:
        name: of the scores.
        scores: all of a split.
        texts_differ: whether the responses are not all the same text.

    Raises:
        DataError: they are of a scorer with continuous scores, so its weights or inputs are broken.
    """
    if not texts_differ or len(set(scores)) != 1:
        return None
    what = f"{name} gave all {len(scores)} responses of {split} the same score, {scores[0]:g}"
    if scorer.continuous:
        raise DataError(what, "score", "check that its head is trained and that max_tokens leaves the responses whole")
    return what


@contextlib.contextmanager
def errors_of(key: str) -> Iterator[None]:
    """A scorer names its options as those of ``score``: errors name ``key`` instead."""
    try:
        yield
    except UserError as error:
        if key == "score":
            raise
        where, remedy = (_SCORE_KEY.sub(key, text) for text in (error.where, error.remedy))
        raise type(error)(error.what, where, remedy) from error


def close_scorer(scorer: Scorer) -> None:
    """Have the scorer release what it holds; raises ConfigError where its code fails."""
    with user_code(scorer.source, _name(scorer), "score"):
        scorer.close()


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
