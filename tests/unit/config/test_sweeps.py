"""A multirun's values make at least one run, and not more than can be listed."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mpo.config.sweeps import MEMBERS, check_sweep
from mpo.errors import ConfigError


def check(*overrides: str) -> None:
    check_sweep(OverridesParser.create().parse_overrides(list(overrides)))


@pytest.mark.parametrize("values", ["0,1", "range(3)", "range(5,1,-2)", "range(0,1,0.25)", "choice(a,b)", "7"])
def test_some_values_are_run(values: str) -> None:
    check(f"seed={values}", "name=x")


@pytest.mark.parametrize("values", ["range(0)", "range(5,0)", "range(1,1,0.5)", "range(0,3,-1)"])
def test_no_value_is_an_error_that_names_the_override(values: str) -> None:
    with pytest.raises(ConfigError, match="no value to run") as caught:
        check("name=a,b", f"seed={values}")
    assert caught.value.where == f"'seed={values}'"


@pytest.mark.parametrize(
    "values", [f"range({MEMBERS + 1})", f"range({10**30})", "range(0,1,1e-30)", "shuffle(range(10000000000))"]
)
def test_too_many_runs_are_told_without_being_listed(values: str) -> None:
    with pytest.raises(ConfigError, match="more than 10,000 runs"):
        check(f"seed={values}")


def test_values_of_several_keys_multiply() -> None:
    check("seed=range(100)", "data.split_seed=range(100)")
    with pytest.raises(ConfigError, match="more than 10,000 runs"):
        check("seed=range(100)", "data.split_seed=range(101)")


def test_a_range_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="without end"):
        check("seed=range(0,5,0)")
