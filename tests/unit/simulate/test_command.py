from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mpo.simulate.__main__ import main


def test_two_runs_leave_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        assert main(["spacing", "--out", str(tmp_path / folder), "--seed", "3", "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and printed[0] == printed[1]
    for kind in ("json", "md", "png"):
        first, second = ((tmp_path / folder / f"spacing.{kind}").read_bytes() for folder in ("a", "b"))
        assert first == second and len(first) > 500
    found = json.loads((tmp_path / "a" / "spacing.json").read_text())
    assert found == json.loads(printed[0])
    assert found["seed"] == 3 and {"numpy", "scipy", "mpo", "python"} <= found["versions"].keys()
    assert {"commit", "findings"} <= found.keys() and found["rows"][0]["k"] == 2


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["spacing", "--out", str(tmp_path / "taken")]) == 2
    assert capsys.readouterr().err.startswith(f"mpo: error: {tmp_path / 'taken'}: ")


@pytest.mark.parametrize("seed", ["-1", "1.5", "x"])
def test_a_seed_that_is_none_is_refused(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["spacing", "--out", "unused", f"--seed={seed}"])
    assert "not a whole number" in capsys.readouterr().err


def test_no_torch_is_imported() -> None:
    code = "import sys, mpo.simulate.__main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
