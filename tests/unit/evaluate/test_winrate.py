"""``python -m mpo.evaluate.winrate``: figures by hand, published ones, and files that cannot be used."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpo.evaluate.winrate import main

JUDGED = Path(__file__).parents[3] / "../shared/data/judged"
needs_judged = pytest.mark.skipif(not JUDGED.is_dir(), reason=f"{JUDGED.name}: published annotations are not here")


def record(instruction: str, preference: Any, **others: Any) -> dict[str, Any]:
    return {
        "instruction": instruction,
        "output_1": "four words are here",
        "output_2": "three are here",
        "generator_1": "base",
        "generator_2": "mine",
        "annotator": "judge",
        "preference": preference,
        **others,
    }


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found: dict[str, Any] = json.loads(printed.out, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    return found


def test_raw_rate_ties_and_lengths_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preferences = [2.0, 1.0, 1.5, 0, 1.25, None, math.nan]
    file = write(tmp_path / "a.json", [record(f"i{n}", value) for n, value in enumerate(preferences)])
    found = run_json(capsys, file)["groups"][0]
    model = found["models"][0]
    assert (found["judge"], found["baseline"], found["instructions"], model["model"]) == ("judge", "base", 7, "mine")
    assert model["win_rate"] == pytest.approx(100 * (1 + 0 + 0.5 + 0.5 + 0.25) / 5)
    deviations = [0.55, -0.45, 0.05, 0.05, -0.2]
    assert model["standard_error"] == pytest.approx(100 * math.sqrt(sum(d * d for d in deviations) / 4 / 5))
    assert (model["judgements"], model["instructions"], model["ties"], model["unjudged"]) == (5, 5, 2, 2)
    assert (model["length"], model["baseline_length"]) == (14, 19)
    assert (model["judge_error"], found["difficulty"]) == (None, None)
    assert main([file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "judge judge, baseline base: 1 model, 7 instructions"
    assert "note: one model only: no difficulty of instructions is estimated" in lines[4]
    assert any("mine: all its differences in length are the same" in line for line in lines)
    assert "note: mine: 2 records without a preference are left out" in lines


def test_sides_are_turned_to_the_named_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    straight = [record(f"i{n}", 1 + n / 10, output_2="x" * n) for n in range(8)]
    turned = [
        record(one["instruction"], 3 - one["preference"], output_1=one["output_2"], output_2=one["output_1"])
        | {"generator_1": "mine", "generator_2": "base"}
        for one in straight
    ]
    expected = run_json(capsys, write(tmp_path / "a.json", straight))["groups"][0]["models"][0]
    mixed = write(tmp_path / "b.json", straight[:3] + turned[3:])
    found = run_json(capsys, mixed, "--baseline", "base")["groups"][0]["models"][0]
    assert (expected.pop("turned"), found.pop("turned")) == (0, 5)
    assert (expected.pop("files"), found.pop("files")) == ([str(tmp_path / "a.json")], [mixed])
    assert found == pytest.approx(expected)
    assert main([mixed]) == 2
    assert "row 1: base is generator_1 here and generator_2 in" in capsys.readouterr().err


def test_repeats_are_averaged_and_give_the_judges_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = [record("a", 1.2), record("b", 1.9), record("c", 1.0)]
    second = [record("a", 1.4), record("b", 1.8), record("c", 1.0, output_2="another"), record("c", 1.0)]
    files = [write(tmp_path / "a.json", first), write(tmp_path / "b.json", second)]
    found = run_json(capsys, *files)["groups"][0]["models"][0]
    assert found["win_rate"] == pytest.approx(100 * (0.3 + 0.85 + 0.0) / 3)
    noise = (0.02 + 0.005 + 0.0) / (1 + 1 + 2)  # squares over degrees of freedom
    assert found["judge_error"] == pytest.approx(100 * math.sqrt(noise * (1 / 2 + 1 / 2 + 1 / 3)) / 3)
    assert found["length_controlled_judge_error"] > 0
    assert (found["instructions"], found["judgements"], found["repeated"]) == (3, 7, 3)
    assert (found["copies"], found["other_answers"], found["files"]) == (1, 1, files)
    assert main(files) == 0
    out = capsys.readouterr().out
    assert "judge ±" in out and "3 instructions judged repeatedly are averaged" in out


def test_judges_baselines_and_gaps_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [record("a", 1.2), record("b", 1.5), record("a", 1.9, annotator="other"), record("a", 2, generator_1="old")]
    rows += [record("a", 1.3, generator_2="theirs", output_1="not the same"), record("a", 2, annotator=None)]
    file = write(tmp_path / "a.json", rows)
    found = run_json(capsys, file)
    assert [(one["judge"], one["baseline"]) for one in found["groups"]] == [
        ("judge", "base"),
        ("other", "base"),
        ("judge", "old"),
        ("(not named)", "base"),
    ]
    assert {one["model"]: one["missing"] for one in found["groups"][0]["models"]} == {"mine": 0, "theirs": 1}
    notes = found["groups"][0]["notes"]
    assert notes[-1] == "1 instruction has different answers of the baseline in different records"
    assert found["notes"] == [
        f"{file} holds 3 judges (judge, other, (not named)), each reported by itself",
        f"{file} holds 2 baselines (base, old), each reported by itself",
    ]
    assert main([file]) == 0
    assert "note: theirs: 1 instruction of other models is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", ":1: not JSON: Expecting property name enclosed in double quotes at column 2; give a JSON list"),
        ('{"a": 1}', ": an object, not a list of records; give a file in AlpacaEval's format"),
        ("[]", ": the list is empty; give"),
        ("[3]", ":row 1: a number, not a record with fields; take it out"),
        ([record("a", 1.5), {"instruction": "b"}], ":row 2: no generator_1; add generator_1"),
        ([record("a", 1.5, output_2=None)], ":row 1: output_2 is null, not text; give output_2 as text"),
        ([record("a", 2.5)], ":row 1: preference 2.5 is out of range; give 1 (output_1 wins) to 2 (output_2 wins)"),
        ([record("a", "2")], ":row 1: preference is text, not a number; give 1"),
        ([record("a", True)], ":row 1: preference is true or false, not a number; give 1"),
        ([record("", 1.5)], ":row 1: instruction is empty; fill instruction in"),
        ([record("a", 1.5, generator_2="base")], ":row 1: both outputs are by base; take out"),
        ([record("a", None)], ":row 1: no record of mine has a preference; judge it first"),
    ],
)
def test_what_cannot_be_used_is_one_line_each(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    assert main([str(file), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[0].startswith(f"mpo: error: {file}{message}")


def test_all_bad_records_are_counted_and_some_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = {key: value for key, value in record("a", 1).items() if key != "preference"}
    file = write(tmp_path / "a.json", [record("x", 1.5), *[missing] * 30])
    assert main([file]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"mpo: error: {file}:row 2: no preference; give 1 (output_1 wins)")
    assert len(lines) == 21
    assert lines[-1] == "mpo: error: 30 of 31 records cannot be used; fix them, or take them out"


def test_files_that_are_absent_broken_doubled_or_without_the_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.json", [record("a", 1.5)])
    broken = tmp_path / "b.json.gz"
    broken.write_bytes(gzip.compress(b"[]" * 1000)[:-9])
    for arguments, message in (
        ([str(tmp_path / "none.json")], "none.json: cannot be read: No such file or directory; check the path"),
        ([str(broken)], "b.json.gz: the gzip data is broken"),
        ([file, str(tmp_path / "." / "a.json")], "a.json: the file is named twice; name each file once"),
        ([file, "--baseline", "gpt"], "neither generator_1 (base) nor generator_2 (mine) is gpt; name another"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err.splitlines()[0]


def test_files_with_the_model_first_throughout_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        write(tmp_path / f"{name}.json", [record("a", 1.1, generator_1=name, generator_2="base")])
        for name in ("one", "two")
    ]
    notes = run_json(capsys, *files)["notes"]
    assert notes == ["generator_2 is base in every record; if it is the baseline, add --baseline base"]
    assert [one["baseline"] for one in run_json(capsys, *files, "--baseline", "base")["groups"]] == ["base"]


@needs_judged
def test_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    published = json.loads((JUDGED / "published.json").read_text())
    found = run_json(capsys, *(str(JUDGED / f"{name}.json.gz") for name in published))["groups"]
    assert len(found) == 1
    models = {one["model"]: one for one in found[0]["models"]}
    assert models.keys() == published.keys()
    for name, one in models.items():
        assert one["win_rate"] == pytest.approx(published[name]["win_rate"], abs=1e-6)
        assert one["standard_error"] == pytest.approx(published[name]["standard_error"], abs=1e-6)
        assert one["judgements"] == published[name]["n_total"]
        assert one["missing"] == 805 - published[name]["n_total"]
        if not one["missing"]:  # the published length is that of all its answers
            assert int(one["length"]) == published[name]["avg_length"]
    pairs = [(one["length_controlled"], published[name]["length_controlled_winrate"]) for name, one in models.items()]
    distances = [abs(ours - theirs) for ours, theirs in pairs]
    assert sum(distances) / len(distances) < 0.9  # 0.79
    assert max(distances) < 1.7  # 1.58
    assert spearman(pairs) > 0.94  # 0.943: one pair of neighbours changes places


def spearman(pairs: list[tuple[float, float]]) -> float:
    ranks = [[sorted(side).index(value) for value in side] for side in zip(*pairs, strict=True)]
    n = len(pairs)
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks, strict=True)) / (n * (n * n - 1))


@needs_judged
def test_one_model_alone_is_near_the_published_figure(capsys: pytest.CaptureFixture[str]) -> None:
    published = json.loads((JUDGED / "published.json").read_text())["alpaca-7b"]
    found = run_json(capsys, str(JUDGED / "alpaca-7b.json.gz"))["groups"][0]
    assert "one model only" in found["notes"][0]
    one = found["models"][0]
    assert abs(one["length_controlled"] - published["length_controlled_winrate"]) < one["length_controlled_error"]


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", [record("a", 1.5), record("b", 1.25)])
    code = "import sys; from mpo.evaluate.winrate import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("judge judge, baseline base: 1 model, 2 instructions")
