"""What a scorer of anyone's gets, and what of its answers is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from mpo.errors import ConfigError, DataError
from mpo.score import Item, Scorer
from mpo.score.checked import check_scorer, check_spread, checked_scores, scores_of_sets
from mpo.types import Message


def item(words: int) -> Item:
    return Item((Message("user", "q"),), Message("assistant", "word " * words))


CALLS: list[list[int]] = []


@dataclass(frozen=True)
class CountWords(Scorer):
    items_at_once: ClassVar[int] = 3

    def score(self, items: Sequence[Item]) -> list[float]:
        CALLS.append([len(each.response.content.split()) for each in items])
        return [float(count) for count in CALLS[-1]]


def test_items_of_similar_length_come_together_and_scores_go_back_to_their_items() -> None:
    CALLS.clear()
    counts = [5, 1, 9, 2, 8, 3, 7]
    assert checked_scores(CountWords(), [item(count) for count in counts]) == counts
    assert CALLS == [[1, 2, 3], [5, 7, 8], [9]]
    assert checked_scores(CountWords(), []) == []


@dataclass(frozen=True)
class Shares(Scorer):
    """Each response's share of the words of its set."""

    items_at_once: ClassVar[int] = 1
    compares: ClassVar[bool] = True
    continuous: ClassVar[bool] = True

    def score(self, items: Sequence[Item]) -> list[float]:
        counts = [len(each.response.content.split()) for each in items]
        return [count / sum(counts) for count in counts]


def test_a_scorer_that_compares_gets_whole_sets_in_their_order() -> None:
    sets = [[item(3), item(1)], [], [item(2)], [item(1), item(1), item(2)]]
    assert scores_of_sets(Shares(), sets) == [0.75, 0.25, 1.0, 0.25, 0.25, 0.5]
    assert scores_of_sets(CountWords(), sets) == [3.0, 1.0, 2.0, 1.0, 1.0, 2.0]


def test_one_score_for_all_is_an_error_of_continuous_scores_and_a_warning_of_others() -> None:
    assert check_spread(CountWords(), "words", [1.0, 1.0], True, "train") == (
        "words gave all 2 responses of train the same score, 1"
    )
    with pytest.raises(DataError, match="score: shares gave all 3 responses of heldout the same score, 0.5; check"):
        check_spread(Shares(), "shares", [0.5] * 3, True, "heldout")
    assert check_spread(Shares(), "shares", [0.5] * 3, False, "train") is None  # one text alone
    assert check_spread(Shares(), "shares", [0.5, 0.6], True, "train") is None


@dataclass(frozen=True)
class Returning(Scorer):
    value: Any

    def check(self) -> None:
        raise ValueError("no key in the environment")

    def score(self, items: Sequence[Item]) -> list[float]:
        if isinstance(self.value, type):
            raise self.value("of its own")
        return self.value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1.0], "score: Returning returned 1 for 2 items; return one score per item"),
        (1.0, "score: Returning returned a float, not a list for 2 items"),
        (None, "score: Returning returned a NoneType, not a list for 2 items"),
        ([1.0, float("nan")], "score: Returning returned nan, not a number; return a finite float"),
        ([1.0, "x" * 1000], f"score: Returning returned '{'x' * 78}…, not a number"),
    ],
)
def test_other_answers_are_refused(value: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        checked_scores(Returning(value), [item(1), item(2)])
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_what_a_scorer_raises_is_one_line(kind: type[BaseException]) -> None:
    with pytest.raises(ConfigError, match=r"score: Returning (raised RuntimeError|called exit).* at test_checked\.py:"):
        checked_scores(Returning(kind), [item(1)])


def test_what_its_check_raises_is_one_line() -> None:
    check_scorer(CountWords())
    with pytest.raises(ConfigError, match="score: Returning raised ValueError: no key in the environment"):
        check_scorer(Returning(0))
