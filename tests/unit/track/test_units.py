from __future__ import annotations

import math

import pytest

from mpo.track.units import count, duration, memory, number


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (42, "42 s"),
        (59.7, "1 min 00 s"),
        (184, "3 min 04 s"),
        (3599.8, "1 h 00 min"),
        (3720, "1 h 02 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_memory() -> None:
    assert memory(512 * 2**20) == "512 MiB"
    assert memory(71.3 * 2**30) == "71.3 GiB"


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (7.2131, 0.0521, "7.213 ± 0.052"),
        (52.34, 1.26, "52.3 ± 1.3"),
        (1234.0, 56.0, "1234 ± 56"),
        (0.5, None, "0.5"),
        (12000, None, "12,000"),
        (math.nan, 0.1, "–"),
        (0.25, math.nan, "0.25"),
        (0.792, 1e-17, "0.792 ± 0"),
    ],
)
def test_number(value: float, error: float | None, text: str) -> None:
    assert number(value, error) == text


def test_what_rounds_to_the_next_unit_is_given_in_it() -> None:
    given = {999: "999", 999_499: "999k", 999_500: "1M", 999_885_952: "1B", 7_504_924_672: "7.5B"}
    assert {things: count(things) for things in given} == given
