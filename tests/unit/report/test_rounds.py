"""Figures of rounds: what changes from round to round is drawn, with the round's time."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpo.evaluate.records import Baseline, Estimate
from mpo.report.records import RoundRow
from mpo.report.rounds import round_figures, time_figure

PNG = b"\x89PNG\r\n\x1a\n"


def estimate(metric: str, round_number: int | None, value: float, temperature: float | None = None) -> Estimate:
    even = (Baseline("even", 0.5),)
    return Estimate(metric, value, 0.1, round=round_number, temperature=temperature, baselines=even)


def test_a_metric_that_changes_has_a_figure_with_a_line_a_temperature(tmp_path: Path) -> None:
    changing = [estimate("win_rate", n, 0.5 + n / 10, t) for n in (1, 2, 3) for t in (0.7, 1.0)]
    same = [estimate("start_within_prompt_std", n, 0.4, 1.0) for n in (1, 2, 3)]
    once = [estimate("length", 3, 12.0)]
    (drawn,) = round_figures([*changing, *same, *once], tmp_path)
    assert drawn.title == "Win rate by round" and "Dotted: even" in (drawn.caption or "")
    assert drawn.path.read_bytes().startswith(PNG)
    (others,) = round_figures([*changing[:5], estimate("win_rate", 3, 0.1, 1.0)], tmp_path / "other")
    assert others.path.read_bytes() != drawn.path.read_bytes()


def test_a_single_round_has_none(tmp_path: Path) -> None:
    assert round_figures([estimate("win_rate", None, 0.6)], tmp_path) == time_figure([], tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_a_row_says_how_much_of_its_time_was_spent_on_neither() -> None:
    row = RoundRow(1, {"sampling": 50.0, "scoring": 10.0, "training": 30.0, "evaluating": 10.0}, 8, 32, 900)
    assert (row.whole, row.outside) == (100.0, pytest.approx(0.1))
    assert RoundRow(1, {}, 0, 0, 0).outside == 0.0


def test_where_the_time_went_is_one_figure(tmp_path: Path) -> None:
    rows = [RoundRow(n, {"sampling": 10.0 * n, "training": 5.0}, 8, 32, 900) for n in (1, 2)]
    (drawn,) = time_figure(rows, tmp_path)
    assert drawn.path.read_bytes().startswith(PNG)
