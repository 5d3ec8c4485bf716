from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mpo.data.check import main


def rows(path: Path, prompts: list[str]) -> Path:
    scored = [{"text": "long answer", "score": 3}, {"text": "short", "score": 1}, {"text": "tiny", "score": 1}]
    path.write_text("".join(json.dumps({"prompt": prompt, "responses": scored}) + "\n" for prompt in prompts))
    return path


def test_a_clean_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(rows(tmp_path / "a.jsonl", ["one", "two"]))]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "layout response_sets (found) errors 0 warnings 0 sets 2 responses a set 3: 2 repeated prompts 0" in shown
    assert "scores min 1, mean 1.667, max 3" in shown
    assert "tied pairs 2 of 6 (33.3%) longer one wins 100.0% of 4 pairs" in shown


def test_problems_are_shown_up_to_the_limit_and_all_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rows(tmp_path / "a.jsonl", ["one", "two"])
    path.write_text(path.read_text() + "{\n" * 5)
    assert main([str(path), "--max-problems", "2"]) == 2
    shown = capsys.readouterr().out
    assert f"{path}:3: broken_json" in shown and f"{path}:4: broken_json" in shown and f"{path}:5" not in shown
    assert "and 3 more problems" in shown and "broken_json 5" in shown


def test_shared_prompts_fail_against_heldout_data_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = rows(tmp_path / "a.jsonl", ["one", "two"]), rows(tmp_path / "b.jsonl", ["TWO ", "three"])
    assert main([str(a), str(b)]) == 0
    assert "1 (50.0% of the latter)" in capsys.readouterr().out
    assert main([str(a), "--heldout", str(b)]) == 2
    assert "contaminated" in capsys.readouterr().out


def test_the_command_imports_no_torch_and_ends_with_one_line(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", ["one"])
    code = "import sys; from mpo.data.check import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    assert (
        subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False, capture_output=True).returncode
        == 0
    )
    command = [sys.executable, "-m", "mpo.data.check", "missing.jsonl"]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "mpo: error: missing.jsonl: no such file; check the path\n"
