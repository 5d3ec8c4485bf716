"""What overrides span."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mpo.errors import ConfigError
from mpo.sweeps.space import Axis, Space, space_of


def space(*lines: str) -> Space:
    return space_of(OverridesParser.create().parse_overrides(list(lines)))


def test_lists_ranges_and_intervals_are_axes_and_seeds_stand_apart() -> None:
    found = space(
        "loss.beta=0.1,0.3", "sample.n=range(2,5)", "train.lr=tag(log,interval(1e-4,1e-2))", "seed=0,1", "name=x"
    )
    assert found.axes == (
        Axis("loss.beta", ("0.1", "0.3")),
        Axis("sample.n", ("2", "3", "4")),
        Axis("train.lr", (), 1e-4, 1e-2, log=True),
    )
    assert (found.seeds, found.fixed) == (("0", "1"), ("name=x",))
    assert found.overrides(["0.1", "2", "0.001"], "1") == [
        *("name=x", "loss.beta=0.1", "sample.n=2", "train.lr=0.001", "seed=1")
    ]


def test_of_one_key_the_last_counts_and_may_fix_it() -> None:
    found = space("loss.beta=0.1,0.3", "loss.alpha=1,2", "loss.beta=0.5,0.7", "loss.alpha=3")
    assert found.axes == (Axis("loss.beta", ("0.5", "0.7")),) and found.fixed == ("loss.alpha=3",)
    assert found.seeds == ("",) and found.overrides(["0.5"], "") == ["loss.alpha=3", "loss.beta=0.5"]


def test_numbers_of_an_interval_stay_inside_it() -> None:
    (axis,) = space("x=interval(0.12344,0.2)").axes
    assert axis.ends == ("0.12344", "0.2") and axis.written(0.123441) == "0.12344" and axis.written(0.15) == "0.15"
    assert space("k=int(interval(1,8))").axes[0].whole


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seed=0,1", "nothing varies but seeds"),
        ("a=interval(3,1)", "without numbers"),
        ("a=tag(log,interval(0,1))", "begins above 0"),
        ("a=tag(lag,interval(1,2))", "'lag' is no known tag"),
        ("a=range(0)", "no value to run"),
    ],
)
def test_what_spans_nothing_is_told(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        space(line)


def test_an_interval_of_seeds_is_told() -> None:
    with pytest.raises(ConfigError, match="list them"):
        space("a=1,2", "seed=interval(0,9)")
