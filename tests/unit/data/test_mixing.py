"""Shares of a mixture's parts, by hand, and which sets they are."""

from __future__ import annotations

import pytest

from mpo.data.mixing import shares, take_shares
from mpo.errors import DataError

WEIGHTS = {"a": 2.0, "b": 1.0}


@pytest.mark.parametrize(
    ("weights", "available", "total", "expected"),
    [
        (WEIGHTS, (400, 150), None, (300, 150)),  # b is the scarcest: 150 are a third of 450
        (WEIGHTS, (200, 150), None, (200, 100)),  # a is: 200 are two thirds of 300
        (WEIGHTS, (400, 150), 300, (200, 100)),
        (WEIGHTS, (400, 150), 301, (201, 100)),  # 200.67 and 100.33
        (WEIGHTS, (400, 150), 302, (201, 101)),  # 201.33 and 100.67
        ({"a": 0.7, "b": 0.3}, (70, 30), None, (70, 30)),  # 0.7 + 0.3 in binary would lose one
        ({"a": 1.0, "b": 1.0}, (5, 5), 5, (3, 2)),  # equal rests: the first
        ({"a": 1.0}, (7,), None, (7,)),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, (4, 9, 5), None, (4, 4, 4)),
    ],
)
def test_shares_by_hand(
    weights: dict[str, float], available: tuple[int, ...], total: int | None, expected: tuple[int, ...]
) -> None:
    assert shares(weights, dict(zip(weights, available, strict=True)), total) == dict(
        zip(weights, expected, strict=True)
    )


def test_a_part_that_cannot_give_its_share_is_named_with_numbers() -> None:
    with pytest.raises(DataError) as caught:
        shares(WEIGHTS, {"a": 400, "b": 150}, 600)
    assert str(caught.value) == (
        "data.source.total: part 'b' has 150 sets, its share of 600 is 200 (weight 1 of 3); "
        "give at most 450, lower the part's weight, or leave total out"
    )
    assert shares(WEIGHTS, {"a": 400, "b": 150}, 450) == {"a": 300, "b": 150}
    with pytest.raises(DataError, match="part 'b' has no set left to give.*leave it out"):
        shares(WEIGHTS, {"a": 400, "b": 0}, None)


@pytest.mark.parametrize("total", [None, 10])
def test_a_part_that_would_give_nothing_is_refused(total: int | None) -> None:
    with pytest.raises(DataError, match=r"parts.b.weight: part 'b' gives nothing: its share of 10 is 0 \(weight 0.001"):
        shares({"a": 1.0, "b": 0.001}, {"a": 10, "b": 5}, total)


PARTS = ["a"] * 300 + ["b"] * 100
KEYS = [f"prompt {i}" for i in range(400)]


def test_sets_are_drawn_once_by_seed_and_smaller_shares_are_subsets() -> None:
    few, many = (take_shares(PARTS, KEYS, WEIGHTS, total, 1) for total in (30, 150))
    assert list(many) == sorted(set(many)) and len(many) == 150 and set(few) < set(many)
    assert sum(index >= 300 for index in many) == 50 and sum(index >= 300 for index in few) == 10
    assert few == take_shares(PARTS, KEYS, WEIGHTS, 30, 1) != take_shares(PARTS, KEYS, WEIGHTS, 30, 2)
    assert max(many[:100]) > 150  # not the first ones of the file


def test_which_sets_a_part_gives_does_not_depend_on_the_other_parts() -> None:
    alone = take_shares(PARTS[:300], KEYS[:300], {"a": 1.0}, 20, 1)
    assert alone == tuple(index for index in take_shares(PARTS, KEYS, WEIGHTS, 30, 1) if index < 300)
