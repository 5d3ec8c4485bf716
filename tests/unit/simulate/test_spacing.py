from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from mpo.errors import DataError
from mpo.simulate import spacing


def test_uniform_scores_are_one_over_k_plus_one_apart() -> None:
    rows = [row for row in spacing.simulate(0, ks=(2, 5, 32)) if row.distribution.startswith("uniform")]
    for row in rows:
        assert row.expected == pytest.approx(1 / (row.k + 1))
        assert abs(row.spacing - row.expected) < 4 * row.standard_error
    assert rows[-1].local_slope == pytest.approx(-1, abs=0.03)


def test_normal_scores_have_the_known_ranges() -> None:
    """Means of the range of 2, 3, 5 and 10 standard normal draws, as quality control tabulates them."""
    rows = [row for row in spacing.simulate(0, ks=(2, 3, 5, 10)) if row.distribution.startswith("normal")]
    known = [2 / math.sqrt(math.pi), 3 / math.sqrt(math.pi), 2.32593, 3.07751]
    assert [row.expected * (row.k - 1) for row in rows] == pytest.approx(known, abs=1e-5)
    assert all(abs(row.spacing - row.expected) < 4 * row.standard_error for row in rows)


def test_given_scores_by_enumeration() -> None:
    scores = [0.0, 1.0, 1.0, 4.0]
    row = spacing.simulate(0, ks=(3,), empirical={"given": scores})[-1]
    ranges = [max(draw) - min(draw) for draw in itertools.product(scores, repeat=3)]
    assert row.distribution == "given"
    assert row.expected == pytest.approx(np.mean(ranges) / 2, rel=1e-12)
    assert abs(row.spacing - row.expected) < 4 * row.standard_error


def test_sets_of_scores_by_enumeration(tmp_path: Path) -> None:
    sets = [[0.3, 2.0, 1.0, 1.0, 5.0], [4.0, 0.0, 1.5, 7.0], [1.0, 2.0]]
    rows = spacing.of_sets("mine", sets, ks=(2, 3, 8))
    assert [(row.k, row.draws) for row in rows] == [(2, 3), (3, 2)]
    for row in rows:
        each = [
            np.mean([max(chosen) - min(chosen) for chosen in itertools.combinations(scores, row.k)]) / (row.k - 1)
            for scores in sets
            if len(scores) >= row.k
        ]
        assert row.spacing == pytest.approx(np.mean(each), rel=1e-12)
        assert row.standard_error == pytest.approx(np.std(each, ddof=1) / math.sqrt(len(each)))
    assert math.isfinite(rows[0].local_slope) and math.isnan(rows[1].local_slope)
    spacing.figure(rows, tmp_path / "sets.png")
    assert "mine: local slope" in spacing.markdown(rows)


def test_sets_that_are_independent_draws_are_spaced_as_these() -> None:
    sets = np.random.default_rng(0).random((2000, 16)).tolist()
    for row in spacing.of_sets("uniform", sets, ks=(2, 4, 8, 16)):
        assert abs(row.spacing - 1 / (row.k + 1)) < 4 * row.standard_error


@pytest.mark.parametrize(("sets", "what"), [([[1.0, math.nan]] * 2, "finite"), ([[1.0, 2.0], [3.0]], "fewer than two")])
def test_sets_that_cannot_be_used_are_refused(sets: list[list[float]], what: str) -> None:
    with pytest.raises(DataError, match=what):
        spacing.of_sets("mine", sets)


def test_scores_that_are_all_equal_have_no_slope(tmp_path: Path) -> None:
    rows = spacing.simulate(0, ks=(2, 4), draws=100, empirical={"equal": [3.0]})
    assert rows[-1].spacing == rows[-1].expected == 0 and math.isnan(rows[-1].local_slope)
    assert "equal" in spacing.markdown(rows)
    spacing.figure(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf]])
def test_scores_that_are_no_numbers_are_refused(scores: list[float]) -> None:
    with pytest.raises(DataError, match="mine: the scores are not all finite"):
        spacing.simulate(0, empirical={"mine": scores})


def test_repeats_are_equal() -> None:
    assert spacing.simulate(5, (2, 3), 500) == spacing.simulate(5, (2, 3), 500) != spacing.simulate(6, (2, 3), 500)
