from __future__ import annotations

import json
import os
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
    assert "layout response_sets (found) errors 0 warnings 0 sets 2 responses per set 3: 2 repeated prompts 0" in shown
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


def test_a_score_field_that_is_not_there_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rows(tmp_path / "a.jsonl", ["one", "two"])
    assert main([str(path), "--score-field", "score"]) == 0
    assert main([str(path), "--score-field", "nope"]) == 2
    assert "no_score: no response has 'nope'" in capsys.readouterr().out


def test_what_sets_carry_beside_texts_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}], "weight": 2}
    row = {"prompt": "q", "system": "s", "tools": [{"name": "f"}], "chosen": [call], "rejected": "no"}
    path.write_text(json.dumps(row) + "\n")
    assert main([str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "chosen[0].weight is not used (warning)" in shown and "warnings 1: unused_field (weight) 1" in shown
    assert "with system turns 1 with tools 1 with tool calls 1" in shown


def test_a_pipe_and_a_name_that_no_file_has_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, words in [
        (str(tmp_path / "pipe.jsonl"), "a pipe or device, not a file"),
        ("/dev/null", "a pipe or device, not a file"),
        ("x" * 5000 + ".jsonl", "File name too long"),
        (str(tmp_path / "none\n.jsonl"), "no such file"),
    ]:
        assert main([name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line and len(line) <= 400


def test_output_that_cannot_show_a_text_escapes_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"\\ud800": 1, "x": 2}\n{"prompt": "é", "chosen": "\\udfff", "rejected": "…"}\n')
    command = [sys.executable, "-m", "mpo.data.check", str(tmp_path / "a.jsonl"), "--layout", "pairs"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True, env=ascii_only)
    assert done.returncode == 2 and done.stderr == ""
    assert r"missing_field: no 'chosen'; the row has x, \ud800" in done.stdout and "not_unicode" in done.stdout


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
