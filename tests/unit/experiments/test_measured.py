from __future__ import annotations

import math
from pathlib import Path

from mpo.experiments.execute import is_damaged
from mpo.experiments.measured import collect, seconds_of_training
from mpo.report.records import RESULT_FILE
from tests.unit.experiments.conftest import REWARD, WINS, Axis, Finish, cells, estimates, experiment


def test_the_starting_policy_has_its_numbers_from_the_runs_over_it(finish: Finish, tmp_path: Path) -> None:
    of = experiment()
    for cell in cells(of)[:-1]:
        finish(cell, estimates(6.0 + cell.unit))
    numbers = collect(of, cells(of), [REWARD, WINS], (), tmp_path / "runs")
    assert numbers.of(("", "DPO", ""), REWARD) == {0: 6.0, 1: 7.0, 2: 8.0}
    assert numbers.of(("", "MPO", ""), WINS) == {0: 60.0, 1: 70.0}
    assert numbers.of(("", "Start", ""), REWARD) == {0: 4.0, 1: 4.0, 2: 4.0}
    assert numbers.of(("", "Start", ""), WINS) == {0: 50.0, 1: 50.0, 2: 50.0}  # over itself
    assert [cell.label for cell in numbers.missing] == ["MPO · unit 2"] and not numbers.lacking


def test_a_temperature_without_a_measure_is_empty_not_another_ones(finish: Finish, tmp_path: Path) -> None:
    of = experiment(axis=Axis(label="temperature", temperatures=[0.0, 1.0]))
    column = REWARD.__class__(metric="true_reward", label="true reward")  # of any temperature
    for cell in cells(of, 1):
        finish(cell, estimates(6.0))
    numbers = collect(of, cells(of, 1), [column], [0.0, 1.0], tmp_path / "runs")
    assert numbers.of(("", "MPO", "1"), column) == {0: 6.0} and numbers.of(("", "MPO", "0"), column) == {}
    assert numbers.lacking == {"true reward": 2}


def test_rounds(finish: Finish, tmp_path: Path) -> None:
    of = experiment()
    of.rows["DPO"].round = 1
    for cell in cells(of, 1):
        finish(cell, [*estimates(5.0, number=1), *estimates(6.0, number=2)])
    numbers = collect(of, cells(of, 1), [REWARD], (), tmp_path / "runs")
    assert numbers.of(("", "DPO", ""), REWARD) == {0: 5.0}
    assert numbers.of(("", "MPO", ""), REWARD) == {0: 6.0}  # the last one


def test_what_is_not_finite_is_lacking_and_what_is_there_twice_is_named(finish: Finish, tmp_path: Path) -> None:
    of = experiment()
    column = REWARD.__class__(metric="none|true_reward", label="any")
    dpo, mpo = cells(of, 1)
    finish(dpo, estimates(math.nan))
    finish(mpo, [*estimates(6.0, 0.7), *estimates(7.0)])
    numbers = collect(of, [dpo, mpo], [column], (), tmp_path / "runs")
    assert numbers.of(("", "DPO", ""), column) == {} and numbers.lacking == {"any": 1}
    assert numbers.of(("", "MPO", ""), column) == {0: 6.0} and numbers.chosen == {"any": "heldout/true_reward@0.7"}


def test_a_result_that_cannot_be_read_is_missing(finish: Finish, tmp_path: Path) -> None:
    of = experiment()
    for cell, text in zip(cells(of, 1), (b'{"name":', b"\xff\xfe"), strict=True):
        file = finish(cell, estimates(6.0)) / cell.key / RESULT_FILE
        assert not is_damaged(file.parent)
        file.write_bytes(text)
        assert is_damaged(file.parent)
    assert len(collect(of, cells(of, 1), [REWARD], (), tmp_path / "runs").missing) == 2


def test_seconds_of_training_are_means(finish: Finish, tmp_path: Path) -> None:
    of = experiment()
    for cell in cells(of, 2):
        finish(cell, estimates(6.0), seconds=10.0 + cell.unit)
    numbers = collect(of, cells(of, 2), [REWARD], (), tmp_path / "runs")
    assert seconds_of_training(numbers, cells(of, 2)) == {("", "DPO", ""): 10.5, ("", "MPO", ""): 10.5}
