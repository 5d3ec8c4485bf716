"""How far scorers agree, against counts by hand."""

from __future__ import annotations

import pytest

from mpo.score.agreement import agreements


def test_pairs_and_best_are_counted_set_by_set() -> None:
    scores = {"b": [3.0, 2.0, 1.0, 5.0, 4.0, 7.0], "a": [1.0, 0.5, 2.0, 1.0, 1.0, 9.0]}
    # Sets of 3, 2 and 1 responses. Pairs of the first: same, other, other; of the second: tied by a.
    found = agreements(scores, [3, 2, 1])
    assert found == {
        "a and b: pairs in the same order": pytest.approx(1 / 3),
        "a and b: sets with the same best": pytest.approx(1 / 2),
    }


def test_equal_scorers_agree_and_opposite_ones_do_not() -> None:
    values = [0.3, -1.0, 2.0, 0.0]
    found = agreements({"x": values, "y": [2 * each for each in values], "z": [-each for each in values]}, [2, 2])
    assert [found[f"{pair}: pairs in the same order"] for pair in ("x and y", "x and z", "y and z")] == [1.0, 0.0, 0.0]
    assert [found[f"{pair}: sets with the same best"] for pair in ("x and y", "x and z")] == [1.0, 0.0]


def test_one_scorer_agrees_with_nobody_and_ties_are_no_order() -> None:
    assert agreements({"x": [1.0, 2.0]}, [2]) == {}
    assert agreements({"x": [1.0, 1.0], "y": [1.0, 2.0]}, [2]) == {"x and y: sets with the same best": 0.0}
