"""Arena-Hard: both layouts and both scores, its tool as a real program against a judge on loopback, what is missing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mpo.errors import ConfigError, DataError, ProcessError
from mpo.evaluate.arena_hard import ArenaHard
from mpo.evaluate.arena_hard import tool as arena_tool
from mpo.evaluate.arena_hard.files import Game, Judgment, Layout, read_judgments, read_questions
from mpo.evaluate.arena_hard.scores import score_of_2024, score_of_2025
from mpo.evaluate.base import Evidence
from mpo.evaluate.questions import Answer
from mpo.evaluate.records import Estimate
from tests.unit.sample.loopback import serving

BENCHMARK = "arena-hard-v0.1"
IDS = [f"id{number}" for number in range(8)]
TOOL = '''
"""Stands for the tool: its command line, files and folders, of both layouts; one request a game."""
import argparse, json, os, sys, urllib.request
from pathlib import Path
import yaml

parser = argparse.ArgumentParser()
parser.add_argument("--setting-file")
parser.add_argument("--endpoint-file")
options = parser.parse_args()
settings = yaml.safe_load(open(options.setting_file))
judge = settings["judge_model"]
endpoint = yaml.safe_load(open(options.endpoint_file))[judge]
assert endpoint["endpoints"] is None
folder = Path("data") / settings["bench_name"]
key = "uid" if (Path(__file__).parent / "utils").exists() else "question_id"


def answers(model):
    rows = [json.loads(line) for line in open(folder / "model_answer" / f"{model}.jsonl")]
    if key == "uid":
        return {row[key]: row["messages"][-1]["content"]["answer"] for row in rows}
    return {row[key]: row["choices"][0]["turns"][0]["content"] for row in rows}


def ask(first, second):
    body = {"model": endpoint["model"], "messages": [{"role": "user", "content": f"A: {first} B: {second}"}]}
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            said = json.load(answer)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        if error.code == 429:
            return None
        raise
    found = said[said.find("[[") + 2:said.find("]]")] if "[[" in said else None
    return {"score": found, "judgment": {"answer": said}}


for model in settings["model_list"]:
    out = folder / "model_judgment" / judge / f"{model}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)[key] for line in open(out)} if out.exists() else set()
    mine, theirs = answers(model), answers("baseline")
    for row in map(json.loads, open(folder / "question.jsonl")):
        if row[key] in done:
            continue
        a, b = theirs[row[key]], mine[row[key]]
        record = {key: row[key], "model": model, "judge": judge, "games": [ask(a, b), ask(b, a)]}
        if key == "uid":
            record |= {"category": row["category"], "baseline": "baseline"}
        with open(out, "a") as file:
            file.write(json.dumps(record) + "\\n")
'''


def checkout(folder: Path, layout: Layout) -> Path:
    """A checkout of the tool, as far as it is looked at, with another program in the place of its own."""
    (folder / "config").mkdir(parents=True)
    (folder / "gen_judgment.py").write_text(TOOL)
    data = folder / "data" / BENCHMARK
    (data / "model_answer").mkdir(parents=True)
    settings = f"judge_model: gpt\nbench_name: {BENCHMARK}\nmodel_list: [other]\nmax_tokens: 99\n"
    if layout is Layout.of_2025:
        (folder / "utils").mkdir()
        judges = "TEXT = 'x'\nJUDGE_SETTINGS = {'arena-hard-v0.1': {'baseline': 'baseline', 'system_prompt': TEXT}}\n"
        (folder / "utils" / "judge_utils.py").write_text(judges)
        (folder / "config" / f"{BENCHMARK}.yaml").write_text(settings)
        questions = [{"uid": each, "category": BENCHMARK, "cluster": "c", "prompt": f"Ask {each}"} for each in IDS]
        rows = [{"uid": each, "messages": [{}, {"content": {"answer": "BASE"}}]} for each in IDS]
    else:
        (folder / "utils.py").write_text("")
        (folder / "config" / "judge_config.yaml").write_text(settings + "baseline_model: baseline\n")
        questions = [
            {"question_id": each, "category": BENCHMARK, "turns": [{"content": f"Ask {each}"}]} for each in IDS
        ]  # type: ignore[misc]
        rows = [{"question_id": each, "choices": [{"turns": [{"content": "BASE"}]}]} for each in IDS]  # type: ignore
    (data / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (data / "model_answer" / "baseline.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def evidence(tmp_path: Path, seeds: tuple[int, ...] = (0,)) -> tuple[Evidence, list[str]]:
    answers = tuple(Answer(each, (f"MINE {each}",), 0.5, seed, True) for seed in seeds for each in IDS)
    said: list[str] = []
    (tmp_path / "out").mkdir(exist_ok=True)
    return Evidence((), None, None, 0, lambda *_: None, answers, (), tmp_path / "out", said.append), said


def judging(label_of: Any) -> Any:
    """A judge whose label for the first answer, the second one and the number of the request is ``label_of``'s; a
    number is a status."""
    count = [0]

    def answer(path: str, body: Any) -> tuple[int, Any]:
        count[0] += 1
        first, _, second = body["messages"][0]["content"].removeprefix("A: ").partition(" B: ")
        label = label_of(first, second, count[0])
        if isinstance(label, int):
            return label, {"error": {"message": "no"}}
        return 200, {"choices": [{"message": {"role": "assistant", "content": f"So [[{label}]]" if label else "Hm"}}]}

    return answer


def mine_wins(first: str, second: str, number: int) -> str:
    return "A>>B" if first.startswith("MINE") else "B>A"


def by_metric(estimates: list[Estimate]) -> dict[str, Estimate]:
    return {each.metric: each for each in estimates}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_tool, "FIRST_WAIT_S", 0.0)
    monkeypatch.setenv("MY_KEY", "sesame")


def measure(tool: Path, url: str, **options: Any) -> ArenaHard:
    given = {"temperatures": [0.5], "python": sys.executable, "key_variable": "MY_KEY", **options}
    return ArenaHard(tool=str(tool), url=url, **given)


@pytest.mark.parametrize("layout", Layout)
def test_the_tool_judges_and_what_is_missing_is_asked_again(tmp_path: Path, layout: Layout) -> None:
    tool = checkout(tmp_path / "tool", layout)
    before = {path: path.read_bytes() for path in tool.rglob("*") if path.is_file()}

    def label_of(first: str, second: str, number: int) -> Any:
        return 429 if number == 3 and layout is Layout.of_2025 else None if number in (3, 8) else mine_wins(
            first, second, number
        )  # fmt: skip

    given, said = evidence(tmp_path)
    with serving(judging(label_of)) as server:
        one = measure(tool, server.url, model="served")
        one.check()
        found = by_metric(one.measure(given).estimates)
        assert len(server.asked) == 2 * (len(IDS) + 2)  # two questions once more, both games
        assert {body["model"] for body in server.bodies("chat/completions")} == {"served"}
        assert all(headers["authorization"] == "Bearer sesame" for _, headers, _ in server.asked)
        one.measure(given)
        assert len(server.asked) == 2 * (len(IDS) + 2)
    assert said == [] and "questions_without_verdict" not in found
    for metric in ("win_rate_of_2024", "mean_score_of_2025"):
        score = found[metric]
        assert (score.value, score.n, score.unit, score.judge) == (100, len(IDS), "%", "gpt")
        assert score.baseline == ("baseline" if layout is Layout.of_2025 else "gpt-4-0314")
    out = tmp_path / "out"
    assert not any("sesame" in path.read_text() for path in out.rglob("*") if path.is_file())
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert {path: path.read_bytes() for path in tool.rglob("*") if path.is_file()} == before
    assert {path.parent.name for path in out.rglob("policy.jsonl")} == {"model_answer", "gpt"}
    assert len(list(out.rglob("model_answer/policy.jsonl"))) == 2


def test_what_stays_without_a_verdict_counts_neither_as_lost_nor_as_won(tmp_path: Path) -> None:
    tool = checkout(tmp_path / "tool", Layout.of_2025)

    def label_of(first: str, second: str, number: int) -> Any:
        return "C>B" if first == "BASE" and second == "MINE id2" else mine_wins(first, second, number)

    given, said = evidence(tmp_path, (0, 1))
    with serving(judging(label_of)) as server:
        findings = measure(tool, server.url, seeds=[0, 1], attempts=2).measure(given)
        found = by_metric(findings.estimates)
        assert [len(each.values) for each in findings.by_prompt] == [8, 7]
        assert len(server.asked) == 2 * 2 * (len(IDS) + 1)
    assert found["mean_score_of_2025"].value == found["win_rate_of_2024"].value == 100
    assert (found["mean_score_of_2025"].n, found["win_rate_of_2024"].n) == (7, 8)
    assert (found["questions_without_verdict"].value, found["questions_without_verdict"].n) == (2, 16)
    assert len(said) == 1 and said[0].startswith(
        "2 of 16 questions have not two verdicts (2 games without one, 0 questions without"
    )
    assert "2 × C>B is no verdict" in said[0]
    with (
        serving(judging(lambda *_: 500)) as server,
        pytest.raises(
            ProcessError,
            match=r"^measure.tool: arena-hard-auto ended with 1: .*HTTP Error 500.*goes on from where it was",
        ),
    ):
        measure(tool, server.url, name="other", seeds=[0, 1], attempts=2).measure(given)


def test_without_the_tool_answers_are_written_and_judgments_read_back(tmp_path: Path) -> None:
    questions = checkout(tmp_path / "tool", Layout.of_2024) / "data" / BENCHMARK / "question.jsonl"
    given, said = evidence(tmp_path)
    one = ArenaHard(str(questions), temperatures=[0.5])
    one.check()
    found = by_metric(one.measure(given).estimates)
    assert list(found) == ["length"] and found["length"].value == len("MINE id0")
    assert len(said) == 1 and "python ARENA_HARD_AUTO/gen_judgment.py --setting-file" in said[0]
    folder = tmp_path / "judged"
    folder.mkdir()
    games = [{"user_prompt": "", "judgment": "", "score": label} for label in ("B>>A", "A=B")]
    rows = [{"question_id": each, "model": "policy", "judge": "gpt", "games": games} for each in IDS[:6]]
    rows += [{"question_id": IDS[6], "model": "policy", "judge": "gpt", "games": [games[0], {"score": None}]}]

    def write(rows: list[Any]) -> None:
        (folder / "policy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(rows)
    reading = replace(one, judgments=str(folder))
    reading.check()
    found = by_metric(reading.measure(given).estimates)
    assert found["win_rate_of_2024"].value == pytest.approx(100 * (6 * 3.5 + 3) / (6 * 4 + 3))
    assert found["mean_score_of_2025"].value == pytest.approx(100 * 3.5 / 4, abs=2)
    assert found["questions_without_verdict"].value == 2
    record = json.loads((tmp_path / "out" / "arena_hard.json").read_text())["scores"][0]
    assert record["low"] < record["value"] < record["high"] and record["metric"] == "win_rate_of_2024"
    for extra, message in (
        (rows[0], r"policy.jsonl:8: question id0 is judged twice; take one"),
        ({**rows[0], "question_id": "x"}, "1 judgments are about other questions, such as x"),
        ({**rows[0], "question_id": IDS[7], "judge": "b"}, "it holds policy by gpt, policy by b"),
        ({"question_id": "y"}, "policy.jsonl:8: no judgment of Arena-Hard"),
    ):
        write([*rows, extra])
        with pytest.raises(DataError, match=message):
            reading.check()
    for seed in (0, 1):
        lines = [json.dumps({**row, "model": f"policy-t0.5-s{seed}", "judge": f"gpt{seed}"}) for row in rows]
        (folder / f"policy-t0.5-s{seed}.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="judgments by gpt0 against gpt-4-0314 and by gpt1 against gpt-4-0314; give"):
        replace(reading, seeds=[0, 1]).check()


def test_the_score_of_2024_is_a_bradley_terry_fit_and_that_of_2025_drops_questions() -> None:
    draw = np.random.default_rng(0)
    labels = ["A>>B", "A>B", "A=B", "B>A", "B>>A", None]
    judgments = [
        Judgment(f"q{i}", "c", tuple(Game(labels[draw.integers(6)], first) for first in (True, False)), "j", "b")
        for i in range(200)
    ]
    kept = [replace(one, games=tuple(game for game in one.games if game.label)) for one in judgments]
    score = score_of_2024(kept)
    worth = {"A>>B": (1.0, 3), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, 3)}
    games = [(game, *worth[str(game.label)]) for one in kept for game in one.games]

    def loss(strength: float) -> float:  # of the model over the baseline, in log-odds
        shares = [(1 - share if game.baseline_first else share, times) for game, share, times in games]
        return sum(times * (np.logaddexp(0, strength) - share * strength) for share, times in shares)

    fitted = minimize_scalar(loss).x
    assert score is not None and score.value == pytest.approx(100 / (1 + np.exp(-fitted)), abs=1e-4)
    assert score.low < score.value < score.high and score.error > 0
    both = [one for one in kept if len(one.games) == 2]
    newer = score_of_2025(kept)
    assert newer is not None and newer.questions == len(both) < score.questions == len([o for o in kept if o.games])
    assert newer.value == pytest.approx(score_of_2024(both).value, abs=1)  # type: ignore[union-attr]
    assert score_of_2024([]) is None and score_of_2025([kept[0]] * 0) is None


def test_mistakes_are_found_before_anything_is_trained(tmp_path: Path) -> None:
    tool = checkout(tmp_path / "new", Layout.of_2025)
    old = checkout(tmp_path / "old", Layout.of_2024)
    questions = old / "data" / BENCHMARK / "question.jsonl"
    url = "http://localhost:1/v1"
    measure(tool, url).check()
    for make, message in (
        (ArenaHard().check, "^measure: neither questions nor the tool is given"),
        (lambda: measure(tool, url, judgments="x"), "^measure.judgments: judgments that are there already"),
        (lambda: measure(tool, url, name="a/b"), "^measure.name: 'a/b' is no name of a file"),
        (lambda: measure(tool, url, question_file=str(questions)).check(), "^measure.question_file: .* 2024, the tool"),
        (lambda: measure(tool, url, name="baseline").check(), "^measure.name: the baseline has this name"),
        (lambda: measure(tmp_path, url, question_file=str(questions)).check(), "has no gen_judgment.py"),
        (lambda: ArenaHard(str(tmp_path / "none.jsonl")).check(), "^none.jsonl: cannot be read"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            make()
    (old / "data" / BENCHMARK / "model_answer" / "baseline.jsonl").unlink()
    with pytest.raises(ConfigError, match="^measure.tool: the answers of the baseline baseline are not there"):
        measure(old, url).check()
    (old / "utils.py").unlink()
    with pytest.raises(ConfigError, match="is another version of arena-hard-auto than those of 2024 and 2025"):
        measure(old, url).check()
    with pytest.raises(ConfigError, match="^measure.python: 'no-python' cannot be run"):
        measure(tool, url, python="no-python").measure(evidence(tmp_path)[0])
    layout, found = read_questions(tool / "data" / BENCHMARK / "question.jsonl")
    assert layout is Layout.of_2025 and [one.id for one in found] == IDS and found[0].turns == ("Ask id0",)
    questions.write_text('{"question_id": "a", "turns": []}\n{"question_id": 3}\n')
    with pytest.raises(DataError, match=r"question.jsonl:2: no question of Arena-Hard"):
        read_questions(questions)
    questions.write_text("{\n")
    with pytest.raises(DataError, match=r"question.jsonl:1: not JSON"):
        read_judgments(questions)
