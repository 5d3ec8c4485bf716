from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from mpo.simulate import theorem1


def test_the_expected_distance_by_enumeration() -> None:
    p = np.asarray([0.5, 0.3, 0.2])
    for n in (1, 2, 3, 5):
        expected = 0.0
        for draw in itertools.product(range(3), repeat=n):
            counts = np.bincount(draw, minlength=3)
            expected += math.prod(p[list(draw)]) * np.abs(counts / n - p).sum() / 2
        assert theorem1.expected_distance(n, p) == pytest.approx(expected, rel=1e-12)
    assert theorem1.expected_distance(4, np.asarray([1.0])) == 0


def test_distance_falls_as_the_root_of_n() -> None:
    even = {"even": np.full(8, 1 / 8)}
    rows = theorem1.simulate(0, ns=[2**power for power in range(9, 17)], targets=even)
    (slope,) = theorem1.slopes(rows)
    assert abs(slope.value + 0.5) < 3 * slope.standard_error < 0.01
    assert slope.exact == pytest.approx(-0.5, abs=0.001)
    for row in rows:
        assert abs(row.distance - row.exact) < 4 * row.distance_error
        assert row.bias < row.distance < row.bound


def test_the_error_of_the_slope_is_that_of_repeats() -> None:
    even = {"even": np.full(4, 1 / 4)}
    repeats = [theorem1.slopes(theorem1.simulate(seed, (256, 512, 1024, 2048), 100, even))[0] for seed in range(60)]
    spread = np.std([slope.value for slope in repeats], ddof=1)
    assert spread == pytest.approx(repeats[0].standard_error, rel=0.35)


def test_with_more_kinds_than_responses_there_is_no_rate() -> None:
    many = {"many": np.full(2048, 1 / 2048)}
    rows = theorem1.simulate(0, ns=(4, 64), draws=50, targets=many)
    assert rows[1].distance > 0.95 * rows[0].distance
    assert theorem1.slopes(rows) == []
    assert any("above the number of kinds" in line for line in theorem1.findings(rows))


def test_a_row_depends_on_its_seed_alone(tmp_path: Path) -> None:
    two = {"even": np.full(2, 1 / 2)}
    rows = theorem1.simulate(3, (64, 128), 200, two)
    assert rows == theorem1.simulate(3, (64, 128), 200, two) and rows[1:] == theorem1.simulate(3, (128,), 200, two)
    assert rows != theorem1.simulate(4, (64, 128), 200, two)
    theorem1.figure(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "| even | 64 |" in theorem1.markdown(rows)
