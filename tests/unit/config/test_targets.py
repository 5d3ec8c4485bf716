"""``_target_`` nodes: what may be named, how values are converted, and what a slip is told."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from mpo.config.targets import build
from mpo.errors import ConfigError
from mpo.losses import WMPO, Deviation, Loss
from mpo.partition import Partition, TopBottom


def loss(target: str = "mpo.losses.WMPO", allow: tuple[str, ...] = (), **values: Any) -> Loss:
    return build({"_target_": target, **values}, Loss, allow, "loss")  # type: ignore[type-abstract]


def test_values_take_their_fields_types() -> None:
    assert loss(beta="1e-2", alpha=1, deviation="signed") == WMPO(beta=0.01, alpha=1.0, deviation=Deviation.signed)
    assert isinstance(loss(beta=1).beta, float)  # type: ignore[attr-defined]
    partition = build({"_target_": "mpo.partition.TopBottom", "k": 3}, Partition, (), "partition")  # type: ignore[type-abstract]
    assert partition == TopBottom(k=3)


@pytest.mark.parametrize(
    ("values", "where", "part"),
    [
        ({"bta": 1.0}, "loss.bta", "did you mean 'beta'?"),
        ({"beta": "high"}, "loss.beta", "'high' does not fit; give a number"),
        ({"beta": None}, "loss.beta", "give a number"),
        ({"deviation": "sined"}, "loss.deviation", "one of absolute, signed"),
        ({"beta": "???"}, "loss.beta", "has no value"),
        ({"beta": -1.0}, "loss.beta", "give a positive number"),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, Any], where: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loss(**values)
    assert caught.value.where == where
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("os.system", "'allow_targets=[os]'"),
        ("mpolite.Loss", "not part of mpo"),
        ("mpo.losses.MPOO", "did you mean 'MPO'?"),
        ("mpo.loses.MPO", "no module 'mpo.loses'"),
        ("mpo.partition.Mean", "not a Loss dataclass"),
        ("mpo.losses.LOSSES", "not a Loss dataclass"),
        ("WMPO", "no class is named"),
    ],
)
def test_a_wrong_target_is_refused(target: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loss(target)
    assert caught.value.where == "loss._target_"
    assert part in str(caught.value)


def test_other_targets_need_leave(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom mpo.losses import MPO\n\n"
        "@dataclass(frozen=True)\nclass Own(MPO):\n    extra: int = 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="allow it"):
        loss("mine.Own", extra=2)
    own = loss("mine.Own", allow=("mine",), extra=2)
    assert own.extra == 2  # type: ignore[attr-defined]


def test_a_target_whose_own_import_fails_names_the_package(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="needs the package 'a_package_that_is_not_there'"):
        loss("needy.Own", allow=("needy",))


@pytest.mark.parametrize(
    "code, part",
    [
        ("1 / 0", "importing 'broken' raised ZeroDivisionError"),
        ("def f(:", "importing 'broken' raised SyntaxError"),
        ("@dataclass(frozen=True)\nclass Own(Loss):\n    pass", "Own cannot be made: TypeError"),
        (
            "@dataclass(frozen=True)\nclass Own(MPO):\n    def __post_init__(self):\n        int('no')",
            "cannot be made: ValueError",
        ),
        ("@dataclass(frozen=True)\nclass Own(MPO):\n    def __post_init__(self):\n        {}['no']", "made: KeyError"),
        (
            "@dataclass(frozen=True)\nclass Own(MPO):\n    x: 'Nope' = 1",
            "fields of Own cannot be configured: NameError",
        ),
        ("@dataclass(frozen=True)\nclass Own(MPO):\n    x: complex = 1j", "cannot be configured: "),
    ],
)
def test_a_class_of_the_users_that_breaks_is_one_line(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, code: str, part: str
) -> None:
    (tmp_path / "broken.py").write_text(
        f"from dataclasses import dataclass\nfrom mpo.losses import MPO, Loss\n\n{code}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ConfigError) as caught:
        loss("broken.Own", allow=("broken",), **({"beta": 1.0} if "MPO)" in code else {}))
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("node", [3, "mpo.losses.WMPO", None, ["a"]])
def test_what_is_no_mapping_is_no_node(node: Any) -> None:
    with pytest.raises(ConfigError, match="evaluate.measures.x: .* is no class with options; give evaluate.measures.x"):
        build(node, Loss, (), "evaluate.measures.x")  # type: ignore[type-abstract]
