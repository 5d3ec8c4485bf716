"""Grid, random draws and TPE: what each proposes."""

from __future__ import annotations

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mpo.config.schema import Direction, RunConfig, SweepConfig, SweepMethod
from mpo.config.training import TrainConfig
from mpo.errors import ConfigError
from mpo.sweeps.methods import METHODS, Setting, Tried, check_method
from mpo.sweeps.space import Axis, Space, space_of
from mpo.sweeps.stopping import check_comparable, medians

GRID = Space((Axis("a", ("1", "2")), Axis("b", ("x", "y", "z"))), ("",), ())
SPACE = Space((Axis("lr", (), 1e-4, 1.0, log=True), Axis("k", (), 1, 9, whole=True), Axis("c", ("u", "v"))), ("",), ())


def looked_through(space: Space, sweep: SweepConfig, failing: str = "") -> list[Tried]:
    tried: list[Tried] = []
    while (setting := METHODS[sweep.method](space, sweep, tried)) is not None:
        tried.append(Tried(setting, failed=True) if failing in setting else Tried(setting, height(setting)))
    return tried


def height(setting: Setting) -> float:
    """Highest, 0, at k = 6 and c = v."""
    return -((float(setting[1]) - 6) ** 2) - (setting[2] == "u") if len(setting) > 2 else 0.0


def test_a_grid_has_every_combination_in_order() -> None:
    tried = looked_through(GRID, SweepConfig(method=SweepMethod.grid))
    assert [one.setting for one in tried] == list(itertools.product(("1", "2"), ("x", "y", "z")))


@pytest.mark.parametrize("method", [SweepMethod.random, SweepMethod.tpe])
def test_draws_follow_from_the_seed_and_stay_in_the_space(method: SweepMethod) -> None:
    sweep = SweepConfig(method=method, trials=8, seed=3)
    tried = looked_through(SPACE, sweep)
    assert len(tried) == 8 and tried == looked_through(SPACE, sweep)
    assert tried != looked_through(SPACE, SweepConfig(method=method, trials=8, seed=4))
    assert all(
        1e-4 <= float(lr) <= 1 and int(k) in range(1, 10) and c in ("u", "v") for lr, k, c in map(_setting, tried)
    )
    # Those that are done say what comes next, whoever ran them: a sweep goes on as if it had never stopped.
    assert METHODS[method](SPACE, sweep, tried[:5]) == tried[5].setting


def _setting(one: Tried) -> Setting:
    return one.setting


@pytest.mark.parametrize("direction", list(Direction))
def test_tpe_looks_where_it_was_good(direction: Direction) -> None:
    """Its later settings lie nearer the optimum than its first ones, drawn at random."""
    sweep = SweepConfig(method=SweepMethod.tpe, trials=24, direction=direction)
    sign = 1 if direction is Direction.maximize else -1
    tried: list[Tried] = []
    while (setting := METHODS[SweepMethod.tpe](SPACE, sweep, tried)) is not None:
        tried.append(Tried(setting, sign * height(setting)))
    heights = [height(one.setting) for one in tried]
    assert sum(heights[-6:]) / 6 > sum(heights[:6]) / 6 and max(heights) == 0


def test_tpe_takes_failed_and_running_settings() -> None:
    assert len(looked_through(SPACE, SweepConfig(method=SweepMethod.tpe, trials=9), failing="u")) == 9
    running = [Tried(("0.1", "3", "u")), Tried(("0.1", "3", "v"), failed=True), Tried(("0.2", "4", "v"), 1.0)]
    assert METHODS[SweepMethod.tpe](SPACE, SweepConfig(method=SweepMethod.tpe), running) is not None


def test_an_interval_has_no_grid() -> None:
    with pytest.raises(ConfigError, match="lr: an interval has no grid"):
        check_method(SPACE, SweepConfig())


@pytest.mark.parametrize(
    ("axis", "metric", "said"),
    [
        ("loss.beta=0.1,0.3", "heldout/loss", "the scale of heldout/loss depends on loss.beta"),
        ("loss=dpo,mpo", "heldout/margin", "the scale of heldout/margin depends on loss"),
        ("train.global_batch=8,16", "heldout/accuracy", "members with another train.global_batch"),
        ("loss.beta=0.1,0.3", "heldout/accuracy", None),
        ("train.lr=1e-3,1e-4", "heldout/loss", None),
    ],
)
def test_members_whose_evaluations_do_not_compare_are_refused(axis: str, metric: str, said: str | None) -> None:
    space = space_of(OverridesParser.create().parse_overrides([axis]))
    first = RunConfig(train=TrainConfig(keep_best=metric))
    if said is None:
        check_comparable(space, first)
        return
    with pytest.raises(ConfigError, match=said):
        check_comparable(space, first)


def test_medians_are_of_running_means_and_of_members_that_ended_too() -> None:
    curves = [[1.0, 3.0], [2.0, 2.0], [3.0], [None, 5.0, 5.0]]
    rows = [[{"step": i, "heldout/accuracy": value} for i, value in enumerate(curve)] for curve in curves]
    assert medians(rows, "heldout/accuracy") == [2.5, 2.5]
    assert medians(rows[:3], "heldout/accuracy") == [] == medians([], "heldout/accuracy")
