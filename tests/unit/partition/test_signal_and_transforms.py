"""Reasons for a set without signal; score transforms."""

from __future__ import annotations

import statistics

import pytest

from mpo.errors import ConfigError
from mpo.partition import ScoreTransform, no_signal_reason


@pytest.mark.parametrize(
    ("scores", "bins", "contrasts", "needs_sides", "reason"),
    [
        ([1.0, 2.0], [1, 0], True, True, None),
        ([1.0], [0], True, True, "one_response"),
        ([1.0], [0], True, False, "one_response"),
        ([1.0], [0], False, True, None),
        ([3.0, 3.0], [0, 1], True, True, "equal_scores"),
        ([3.0, 3.0], [1, 1], True, True, "equal_scores"),
        ([3.0, 3.0], [0, 0], True, False, "equal_scores"),
        ([3.0, 3.0], [1, 1], False, True, None),
        ([3.0, 3.0, 1.0], [0, 1, -1], True, True, "equal_scores"),
        ([1.0, 2.0], [0, 0], True, True, "empty_side"),
        ([1.0, 2.0], [0, 0], True, False, None),
        ([1.0, 2.0], [0, -1], True, True, "empty_side"),
        ([1.0, 2.0], [0, -1], True, False, "one_response"),
        ([1.0, 2.0], [-1, -1], False, True, "empty_side"),
    ],
)
def test_reason(scores: list[float], bins: list[int], contrasts: bool, needs_sides: bool, reason: str | None) -> None:
    assert no_signal_reason(scores, bins, contrasts, needs_sides) == reason


def test_transform_does_nothing_by_default() -> None:
    assert ScoreTransform()([1.5, -2.0], "a") == [1.5, -2.0]


def test_scale_comes_before_noise_and_zscore_removes_it() -> None:
    assert ScoreTransform(scale=0.5)([4.0, 2.0], "a") == [2.0, 1.0]
    plain, scaled = (ScoreTransform(scale=scale, zscore=True)([1.0, 2.0, 6.0], "a") for scale in (1.0, 7.0))
    assert scaled == pytest.approx(plain)
    assert statistics.fmean(plain) == pytest.approx(0, abs=1e-12)
    assert statistics.pstdev(plain) == pytest.approx(1)


def test_zscore_of_equal_scores_is_zero() -> None:
    assert ScoreTransform(zscore=True)([0.1, 0.1, 0.1], "a") == [0.0, 0.0, 0.0]


def test_noise_depends_on_seed_and_id_alone_and_has_the_given_sigma() -> None:
    noisy = ScoreTransform(noise_sigma=2.0, noise_seed=3)
    first = noisy([1.0, 2.0], "set-7")
    noisy([5.0], "set-1")
    assert noisy([1.0, 2.0], "set-7") == first
    assert noisy([1.0, 2.0], "set-8") != first
    assert ScoreTransform(noise_sigma=2.0, noise_seed=4)([1.0, 2.0], "set-7") != first
    draws = [noisy([0.0], str(index))[0] for index in range(2000)]
    assert statistics.pstdev(draws) == pytest.approx(2.0, rel=0.1)
    assert statistics.fmean(draws) == pytest.approx(0.0, abs=0.2)


@pytest.mark.parametrize("fields", [{"scale": 0.0}, {"scale": float("inf")}, {"noise_sigma": -1.0}])
def test_wrong_transform_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        ScoreTransform(**fields)  # type: ignore[arg-type]
