from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mpo.evaluate.records import Distribution
from mpo.report.curves import PANELS, _keys, _label, series, smoothed, training_figures
from mpo.report.plots import histogram
from tests.unit.report.conftest import MakeRun, metric_rows

PNG = b"\x89PNG\r\n\x1a\n"


def test_every_panel_is_a_different_picture(tmp_path: Path) -> None:
    drawn = training_figures([metric_rows(30, 0)], tmp_path)
    assert {figure.path.stem for figure in drawn} == {
        "loss", "margin", "accuracy", "reward_sides", "reward_ranks", "likelihood_ranks",
        "kl", "weights", "lr", "grad_norm", "tokens_per_second",
    }  # fmt: skip
    pictures = [figure.path.read_bytes() for figure in drawn]
    assert all(picture.startswith(PNG) and len(picture) > 5000 for picture in pictures)
    assert len(set(pictures)) == len(pictures)


def test_a_metric_that_was_never_measured_has_no_picture(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 0.5, "kl": None}, {"step": 2, "loss": 0.4, "kl": math.nan}]
    assert [figure.path.name for figure in training_figures([rows], tmp_path)] == ["loss.png"]
    assert training_figures([[]], tmp_path) == []
    assert training_figures([], tmp_path) == []


def test_held_out_sets_share_the_pictures_of_training_and_come_second(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = [{"step": step, "loss": 1.0 / step, "kl": 0.1 * step} for step in range(1, 9)]
    (before, _) = [figure.path.read_bytes() for figure in training_figures([rows], tmp_path)]
    for row in rows[3::4]:
        row |= {"heldout/loss": 0.5, "heldout/kl": 0.2, "heldout/seconds": 3.0}
    drawn = training_figures([rows], tmp_path)
    assert [figure.path.name for figure in drawn] == ["loss.png", "kl.png"]
    assert drawn[0].path.read_bytes() != before
    assert _keys(rows, PANELS[0].pattern) == ["loss", "heldout/loss"]
    assert [_label(key) for key in ("loss", "heldout/loss")] == ["loss", "held out"]


def test_the_picture_follows_the_data(tmp_path: Path, make_run: MakeRun) -> None:
    drawn = histogram(make_run().distributions[0], tmp_path / "histogram.png")
    other = histogram(Distribution("score in $x^", "$", {"a": (1.0, 2.0, math.nan)}), tmp_path / "other.png")
    assert drawn is not None and other is not None
    assert drawn.path.read_bytes().startswith(PNG) and drawn.path.read_bytes() != other.path.read_bytes()


def test_nothing_finite_is_no_picture(tmp_path: Path) -> None:
    assert histogram(Distribution("score", "", {"a": (math.nan,), "b": ()}), tmp_path / "h.png") is None
    assert not list(tmp_path.iterdir())


def test_series_keeps_finite_points_and_their_steps() -> None:
    steps, values = series(
        [{"step": 1, "a": 2.0}, {"step": 2, "a": None}, {"step": 4, "a": math.inf}, {"step": 5, "a": 3}], "a"
    )
    assert steps.tolist() == [1, 5] and values.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("count", [1, 49])
def test_short_series_are_not_smoothed(count: int) -> None:
    values = np.arange(count, dtype=np.float64)
    assert smoothed(values) is values


def test_smoothing_is_a_mean_over_neighbours_and_keeps_lines_straight() -> None:
    values = np.random.default_rng(0).normal(size=200)
    line = smoothed(values)
    for index in (0, 1, 57, 199):
        window = values[max(0, index - 4) : index + 5]
        assert line[index] == pytest.approx(window.mean())
    straight = np.linspace(0, 1, 200)
    assert smoothed(straight)[4:-4] == pytest.approx(straight[4:-4])
