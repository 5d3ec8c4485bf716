"""The page's part about a sweep: outcomes, the best and what surrounds it, pictures."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import pytest

from mpo.errors import ConfigError
from mpo.evaluate.records import Estimate
from mpo.report.best import best_of
from mpo.report.objective import objective
from mpo.report.surfaces import surface_figures
from mpo.report.sweep_page import sweep_section
from mpo.report.sweep_record import Outcome, SweepRecord, outcomes
from tests.unit.sweeps.conftest import METRIC, invented


def record(settings: list[tuple[str, ...]], *axes: str, seeds: tuple[str, ...] = ("",), **more: str) -> SweepRecord:
    values = {"metric": METRIC, "direction": "maximize", "method": "grid"} | more
    return SweepRecord(**values, axes=axes, log=(), seeds=seeds, space=(), settings=tuple(settings))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = record([("0.1", "mean"), ("0.3", "median")], "loss.beta", "partition", seeds=("0", "1"))
    made.save(tmp_path)
    assert SweepRecord.load(tmp_path) == made and made.members(1) == ["2", "3"]
    assert SweepRecord.load(tmp_path / "nothing") is None
    (tmp_path / "sweep.json").write_text('{"metric": 1}')
    with pytest.raises(ConfigError, match="not the record of a sweep"):
        SweepRecord.load(tmp_path)


def test_a_metric_without_a_round_is_the_last_rounds() -> None:
    rounds = [Estimate("reward", value, temperature=1.0, round=number) for number, value in enumerate((3.0, 4.0), 1)]
    assert objective(rounds, "heldout/reward@1").value == 4.0
    assert objective(rounds, "heldout/reward@1/round1").value == 3.0
    over = [Estimate("win_rate", value, judge="j", baseline=base) for base, value in (("a", 0.5), ("b", 0.6))]
    assert objective(over, "heldout/win_rate/j/b").value == 0.6
    with pytest.raises(ConfigError, match="choose one of heldout/reward@1/round1, heldout/reward@1/round2"):
        objective(rounds, "heldout/reward")


def test_the_error_over_seeds_is_pooled_over_settings(tmp_path: Path) -> None:
    made = record([("1",), ("2",), ("3",)], "k", seeds=("0", "1"))
    values = {"0": 1.0, "1": 3.0, "2": 5.0, "3": 5.0, "4": 7.0, "5": math.nan}
    found = outcomes(made, {name: invented(tmp_path / name, value) for name, value in values.items()})
    assert [(each.mean, each.failed) for each in found] == [(2.0, 0), (5.0, 0), (7.0, 1)]
    # Squared deviations 1 + 1 + 0 + 0 on two degrees of freedom.
    assert [each.error for each in found] == pytest.approx([math.sqrt(1 / 2), math.sqrt(1 / 2), 1.0])
    best = best_of(found, made)
    assert best is not None and [each.number for each in best.ranked] == [1, 0]
    assert best.apart == pytest.approx((0.0, 3.0)) and best.others_within(2) == 0 and best.others_within(4) == 1


def test_one_seed_a_setting_has_its_evaluations_error(tmp_path: Path) -> None:
    made = record([("1",), ("2",)], "k", direction="minimize")
    found = outcomes(made, {name: invented(tmp_path / name, value) for name, value in (("0", 1.0), ("1", 1.05))})
    best = best_of(found, made)
    assert best is not None and best.outcome.number == 0 and best.outcome.error == 0.1 and best.others_within(1) == 1
    # The two are nearer than their errors: their mean is all that is known.
    assert best.expected is not None and best.expected.value == pytest.approx(1.025)


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_is_expected_of_the_best_is_nearer_the_truth_than_what_was_measured(seeds: int) -> None:
    """Thirty settings of which the true means differ as much as one run does from the next, tried many times over."""
    draw = random.Random(0)
    measured, expected = [], []
    for _ in range(200):
        truth = [draw.gauss(0, 1) for _ in range(30)]
        found = [
            Outcome(n, (str(n),), tuple(draw.gauss(mean, 1) for _ in range(seeds)), 1 / math.sqrt(seeds))
            for n, mean in enumerate(truth)
        ]
        best = best_of(found, record([], "k"))
        assert best is not None and best.expected is not None
        measured.append(best.outcome.mean - truth[best.outcome.number])
        expected.append(best.expected.value - truth[best.outcome.number])
    assert statistics.mean(measured) > (0.8 if seeds == 1 else 0.3)
    assert abs(statistics.mean(expected)) < 0.2


def test_nothing_is_expected_of_the_only_one() -> None:
    best = best_of([Outcome(0, ("1",), (2.0,), None), Outcome(1, ("2",), (), None, 1)], record([], "k"))
    assert best is not None and best.expected is None and best.others_within(1) is None
    assert best_of([Outcome(0, ("1",), (), None, 1)], record([], "k")) is None


@pytest.mark.parametrize(
    ("axes", "settings", "files"),
    [
        (("loss.beta",), [("0.1",), ("0.3",), ("3",)], ["sweep_0"]),
        (("partition",), [("mean",), ("median",), ("ranks",)], ["sweep_0"]),
        (("a", "b"), [("1", "x"), ("1", "y"), ("2", "x")], ["sweep_map"]),
        (("a", "b"), [(str(n / 100), str(n)) for n in range(1, 14)], ["sweep_0", "sweep_1", "sweep_plane"]),
        (("a", "b", "c"), [("1", "x", "0"), ("2", "y", "5"), ("2", "z", "5")], ["sweep_0", "sweep_1", "sweep_2"]),
    ],
)
def test_pictures_suit_what_varies(axes: tuple[str, ...], settings: list, files: list[str], tmp_path: Path) -> None:
    made = record(settings, *axes)
    found = [Outcome(n, setting, (float(n),), 0.1) for n, setting in enumerate(settings[:-1])]
    found.append(Outcome(len(settings) - 1, settings[-1], (), None, 1))
    drawn = surface_figures(made, found, best_of(found, made), "reward", 0.5, tmp_path)
    assert [each.path.stem for each in drawn] == files
    assert all(each.path.stat().st_size > 5000 for each in drawn)


def test_the_section_says_what_is_best_and_how_sure_that_is(tmp_path: Path) -> None:
    made = record([("0.1",), ("0.3",), ("1",)], "loss.beta")
    section = sweep_section(made, [invented(tmp_path / str(n), value) for n, value in enumerate((1.0, 2.0))], tmp_path)
    assert section.sentence == "The highest reward at T=1 of 2 settings: 2.00 ± 0.10 at loss.beta = 0.3."
    text = " ".join(section.doubts)
    assert "Of the 1 others 0 lie within one standard error" in text and "owes part of its lead to luck" in text
    assert "1 settings have a run without a value" in text
    assert [row.number for row in section.rows] == [1, 0, 2] and section.leaders == {"0", "1"}
