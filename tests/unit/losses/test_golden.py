"""Golden files: the small one of this repository, the large one where it is there, and the command that checks them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mpo.losses import LOSSES
from mpo.losses.conformance import main
from tests.unit.losses.scalar_reference import SMALL, scalar_expectation

ROOT = Path(__file__).resolve().parents[3]
LARGE = ROOT / "../shared/golden/losses.json"
MORE = ROOT / "../shared/golden/losses_more.json"
CASES: list[dict[str, Any]] = json.loads(SMALL.read_text(encoding="utf-8")) if SMALL.exists() else []


def test_every_loss_on_sums_has_golden_cases() -> None:
    assert {case["loss"] for case in CASES} == set(LOSSES) - {"grpo", "ld_dpo", "wpo", "compose", "sum"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['loss']}-{len(case['rewards'])}")
def test_committed_values_are_those_of_the_scalar_reference(case: dict[str, Any]) -> None:
    loss, grad = scalar_expectation(case)
    assert case["expected_loss"] == pytest.approx(loss, rel=1e-14)
    assert case["expected_grad"] == pytest.approx(grad, rel=1e-14, abs=1e-24)


@pytest.mark.parametrize("path", [SMALL, LARGE], ids=["small", "large"])
def test_losses_conform(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not path.exists():
        pytest.skip(f"{path.name} is not beside this checkout")
    status = main([str(path)])
    assert status == 0, capsys.readouterr().out


def test_relatives_conform(capsys: pytest.CaptureFixture[str]) -> None:
    if not MORE.exists():
        pytest.skip(f"{MORE.name} is not beside this checkout")
    assert main([str(MORE)]) == 0, capsys.readouterr().out


def run_on(rows: Any, tmp_path: Path, *options: str) -> int:
    path = tmp_path / "golden.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows), encoding="utf-8")
    return main([str(path), *options])


def test_wrong_expectation_fails_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = CASES[0] | {"expected_loss": CASES[0]["expected_loss"] * (1 + 1e-6)}
    assert run_on([CASES[1], wrong], tmp_path) == 1
    out = capsys.readouterr().out
    assert "golden.json:case 1: mpo (typical) out of tolerance in float64" in out
    assert "float32:" not in out


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("[1,\n2", "golden.json:2: not JSON"),
        ("{}", "golden.json: holds no list of cases"),
        ([3], "case 0: is not a JSON object"),
        ([{"loss": "mop"}], "rewards is missing"),
        ([{"loss": "mop", "rewards": [1, 2]}], "case 0: unknown loss 'mop'; did you mean mpo?"),
        ([{"params": {"bta": 1}}], "case 0: unknown parameter bta; did you mean beta?"),
        ([{"params": {"beta": -1}}], "case 0: loss.beta: beta is -1"),
        ([{"params": {"beta": "1"}}], "case 0: beta is '1'"),
        ([{"params": {"partition": "best"}}], "case 0: unknown partition 'best'"),
        ([{"params": {"partition": "ranks"}}], "does not fit bins of shape ordered"),
        ([{"params": {"rejected_index": 9}}], "rejected_index 9"),
        ([{"policy_logps": [1.0]}], "policy_logps holds 1 numbers"),
        ([{"policy_logps": [1.0, None]}], "policy_logps holds None"),
        ([{"lengths": [0, 3]}], "lengths"),
        ([{"ref_logps": None}], "ref_logps is missing"),
        ([{"expected_loss": None}], "expected_loss holds None"),
        ([{"loss": "grpo", "params": {}}], "token by token"),
        ([{"loss": "kto", "params": {}}], "params.kl is missing"),
        ([{"loss": "mpo.losses:MPO"}], "pass --allow-import"),
        ([{"rewards": [10**400, 1]}], "rewards holds 1000"),
        ([{"params": {"partition": ["mean"]}}], "unknown partition ['mean']"),
    ],
)
def test_broken_files_are_one_line_and_status_2(
    rows: Any, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(rows, list) and isinstance(rows[0], dict) and rows[0].get("loss") != "mop":
        rows = [CASES[0] | rows[0]]
    assert run_on(rows, tmp_path) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.json"]) == 2
    assert "nowhere.json: cannot be read" in capsys.readouterr().err


def test_a_loss_may_be_imported_when_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_on([CASES[0] | {"loss": "mpo.losses:MPO"}], tmp_path, "--allow-import") == 0
    for wrong in ("mpo.losses:Mop", "mpo.nowhere:MPO", "mpo.errors:DataError"):
        assert run_on([CASES[0] | {"loss": wrong}], tmp_path, "--allow-import") == 2


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(:", "cannot be imported (SyntaxError"),
        ("1 / 0", "cannot be imported (ZeroDivisionError"),
        ("class Own(MPO):\n    def per_set(self, inputs):\n        return {}['no']", "own:Own raised KeyError"),
        ("class Own(Loss):\n    pass", "Own cannot be made (TypeError"),
    ],
)
def test_a_loss_that_breaks_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str, expected: str
) -> None:
    (tmp_path / "own.py").write_text(f"from mpo.losses import MPO, Loss\n\n{code}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    params = {} if "Loss)" in code else CASES[0]["params"]
    assert run_on([CASES[0] | {"loss": "own:Own", "params": params}], tmp_path, "--allow-import") == 2
    captured = capsys.readouterr()
    assert expected in captured.err and captured.err.count("\n") == 1
