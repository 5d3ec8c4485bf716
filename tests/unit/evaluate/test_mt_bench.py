"""MT-Bench against a judge on loopback: FastChat's files, scores that are missing, a stop, mistakes."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo import endpoint
from mpo.errors import ConfigError, DataError, ProcessError, UserError
from mpo.evaluate.base import START, Evidence
from mpo.evaluate.mt_bench import MTBench
from mpo.evaluate.mt_bench.files import read_questions, read_references
from mpo.evaluate.mt_bench.prompts import MATH, PLAIN, TWO_TURNS, prompts_of, score_in
from mpo.evaluate.questions import Answer, question_keys
from mpo.evaluate.records import Estimate
from tests.unit.sample.loopback import Loopback, serving

QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write of a brick.", "Shorter."]},
    {"question_id": 82, "category": "writing", "turns": ["Write of {doors}.", "Longer."]},
    {"question_id": 101, "category": "math", "turns": ["1 + 1?", "And 2 + 2?"], "reference": ["2", "4"]},
    {"question_id": 151, "category": "humanities", "turns": ["Who was Kant?"]},
]
REFERENCES = [{"question_id": 101, "choices": [{"index": 0, "turns": ["Two.", "Four."]}]}]
EVAL = Path(__file__).parents[3] / "../shared/data/eval"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    lines = {"question_file": QUESTIONS, "references": REFERENCES}
    for name, rows in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(tmp_path / f"{name}.jsonl") for name in lines}


def measure(files: dict[str, str], server: Loopback | None = None, **options: Any) -> MTBench:
    url = "http://localhost:1/v1" if server is None else server.url
    given = {"model": "org/judge", "url": url, "attempts": 2, "timeout_s": 5.0, "concurrency": 2}
    return MTBench(**{**files, **given, **options})


def evidence(tmp_path: Path, seeds: tuple[int, ...] = (0,), start: bool = False) -> Evidence:
    def answers(who: str) -> tuple[Answer, ...]:
        return tuple(
            Answer(str(number), tuple(f"{who} {number}.{turn}" for turn in range(1, turns + 1)), 0.7, seed, True)
            for number, turns in ((row["question_id"], len(row["turns"])) for row in QUESTIONS)
            for seed in seeds
        )

    (tmp_path / "out").mkdir(exist_ok=True)
    said: list[str] = []
    found = Evidence((), None, None, 0, lambda *_: None, answers("policy"), answers("start") if start else (),
                     tmp_path / "out", said.append, verdicts=tmp_path / "verdicts")  # fmt: skip
    object.__setattr__(found, "said", said)
    return found


def says(text: str | None, **message: Any) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}]}


def judging(score: Any) -> Any:
    """A judge whose answer to the text of a question is ``score``'s: a number, or a status with a body."""

    def answer(path: str, body: Any) -> tuple[int, Any]:
        found = score(body["messages"][-1]["content"])
        return found if isinstance(found, tuple) else says(f"Good.\n\nRating: [[{found}]]")

    return answer


def by_metric(estimates: list[Estimate]) -> dict[str, Estimate]:
    return {each.metric: each for each in estimates}


SCORES = {"81.1": 8, "81.2": 6, "82.1": 7, "82.2": 9.5, "101.1": 2, "101.2": 4, "151.1": 10}


def by_table(text: str) -> Any:
    """The score of the last answer that the judge sees."""
    at, score = max((text.rfind(f" {name}\n"), score) for name, score in SCORES.items() if f" {name}\n" in text)
    return score / 2 if "start 8" in text or "start 1" in text else score


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_over_turns_and_categories_and_fastchats_files(tmp_path: Path, files: dict[str, str]) -> None:
    with serving(judging(by_table)) as server:
        findings = measure(files, server, against_start=True).measure(evidence(tmp_path, start=True))
        found = by_metric(findings.estimates)
        bodies = server.bodies("chat/completions")
    values = {name.removeprefix("mt_bench").lstrip("/"): each.value for name, each in found.items()}
    assert values == {
        "": pytest.approx(sum(SCORES.values()) / 7), "turn_1": pytest.approx((8 + 7 + 2 + 10) / 4),
        "turn_2": pytest.approx((6 + 9.5 + 4) / 3), "writing": 7.625, "math": 3.0, "humanities": 10.0,
    }  # fmt: skip
    by_prompt = {each.metric: dict(zip(each.prompts, each.values, strict=True)) for each in findings.by_prompt}
    keys = question_keys(measure(files).questions())
    assert by_prompt["mt_bench"] == {keys["81"]: 7, keys["82"]: 8.25, keys["101"]: 3, keys["151"]: 10}
    assert by_prompt["mt_bench/turn_2"] == {keys["81"]: 6, keys["82"]: 9.5, keys["101"]: 4}
    whole = found["mt_bench"]
    assert (whole.key, whole.n, whole.unit) == ("benchmark/mt_bench/judge", 4, "of 10")
    assert whole.baselines[0].name == START and whole.baselines[0].value == pytest.approx(whole.value / 2)
    assert whole.standard_error is not None and 1.3 < whole.standard_error < 2.2
    assert len(bodies) == 14 and all((body["temperature"], body["max_tokens"]) == (0.0, 2048) for body in bodies)
    (answer, *_) = rows(tmp_path / "out" / "model_answer" / "policy.jsonl")
    assert answer["question_id"] == 81 and answer["model_id"] == "policy" and answer["tstamp"] > 0
    assert answer["choices"] == [{"index": 0, "turns": ["policy 81.1", "policy 81.2"]}]
    judgments = rows(tmp_path / "out" / "model_judgment" / "org_judge_single.jsonl")
    fields = ["question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp"]
    assert len(judgments) == 14 and list(judgments[0]) == fields
    asked = {(row["question_id"], row["turn"], row["model"]): row for row in judgments}
    math = asked[101, 2, "policy"]
    assert math["judge"] == ["org/judge", "mpo-1-single-math-v1-multi-turn"] and math["score"] == 4
    for text in ("1 + 1?", "Two.", "policy 101.1", "And 2 + 2?", "Four.", "policy 101.2"):
        assert text in math["user_prompt"], text
    first = asked[82, 1, "policy"]["user_prompt"]
    assert "Write of {doors}." in first and "82.2" not in first and "Reference" not in first
    assert asked[81, 1, "policy_start"]["score"] == 4.0
    record = json.loads((tmp_path / "out" / "mt_bench.json").read_text())
    assert record["prompts"] == "the project's own, mpo-1" and record["temperatures"]["151"] == 0.1


def test_each_seed_is_judged_and_equal_answers_once(tmp_path: Path, files: dict[str, str]) -> None:
    with serving(judging(by_table)) as server:
        found = by_metric(measure(files, server, seeds=[0, 1]).measure(evidence(tmp_path, seeds=(0, 1))).estimates)
        assert len(server.bodies("chat/completions")) == 7
    assert found["mt_bench"].value == pytest.approx(sum(SCORES.values()) / 7) and found["mt_bench"].n == 4
    (answer, *_) = rows(tmp_path / "out" / "model_answer" / "policy.jsonl")
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


def test_what_has_no_score_is_asked_again_counted_and_left_out(tmp_path: Path, files: dict[str, str]) -> None:
    asked: dict[str, int] = {}
    lock = threading.Lock()

    def score(text: str) -> Any:
        name = max((text.rfind(f" {name}\n"), name) for name in SCORES if f" {name}\n" in text)[1]
        with lock:
            asked[name] = asked.get(name, 0) + 1
        if name == "82.1" and asked[name] > 1:
            return 7
        failing = {
            "81.1": says("I give it 8."), "82.1": says("[[eight]]"), "81.2": says(None, refusal="I cannot."),
            "101.1": (429, {"error": {"message": "quota"}}), "151.1": (400, {"error": {"message": "policy"}}),
            "82.2": says("Rating: [[85]]"),
        }  # fmt: skip
        return failing.get(name, 4)

    with serving(judging(score)) as server:
        given = evidence(tmp_path)
        found = by_metric(measure(files, server, retries=1).measure(given).estimates)
    assert (found["mt_bench"].value, found["mt_bench"].n) == ((7 + 4) / 2, 2)
    assert found["mt_bench/without_score"].value == 5 and found["mt_bench/without_score"].n == 7
    assert asked == {"81.1": 2, "81.2": 2, "82.1": 2, "82.2": 2, "101.1": 4, "101.2": 1, "151.1": 2}
    (said,) = given.said  # type: ignore[attr-defined]
    assert said.startswith("5 of 7 answers have no score and are left out (3 × the judge's answer has no score, ")
    assert "1 × the judge's server gave no answer" in said and "1 × the judge's server refused" in said
    scores = [row["score"] for row in rows(tmp_path / "out" / "model_judgment" / "org_judge_single.jsonl")]
    assert scores == [-1, -1, 7.0, -1, -1, 4.0, -1]


def test_a_run_that_is_stopped_goes_on(tmp_path: Path, files: dict[str, str]) -> None:
    count = [0]

    def score(text: str) -> Any:
        count[0] += 1
        if count[0] > 4:
            time.sleep(0.3)  # longer than the measure waits
        return by_table(text)

    with serving(judging(score)) as server:
        given = evidence(tmp_path)
        hasty = measure(files, server, timeout_s=0.15, attempts=1, retries=10)
        with pytest.raises(ProcessError, match=r"gave no answer within 0\.15 s; .*goes on from where it was"):
            hasty.measure(given)
        count[0] = -100
        server.asked.clear()
        found = by_metric(replace(hasty, timeout_s=5.0, retries=2).measure(given).estimates)
        assert found["mt_bench"].value == pytest.approx(sum(SCORES.values()) / 7)
        assert len(server.bodies("chat/completions")) == 3
        again = replace(hasty, concurrency=1).measure(replace(given, output=tmp_path))  # of another run
        assert repr(by_metric(again.estimates)) == repr(found) and len(server.bodies("chat/completions")) == 3
        file, _ = (tmp_path / "verdicts").glob("*.jsonl")  # of the two that have asked
        file.write_text(file.read_text().replace("Rating", "Eating", 1))
        replace(hasty, timeout_s=5.0).measure(given)
        assert "1 kept answers of the judge are damaged" in given.said[-1]  # type: ignore[attr-defined]
        assert len(server.bodies("chat/completions")) == 4
    given = replace(given, verdicts=None)
    with serving(lambda path, body: (401, {})) as server, pytest.raises(ConfigError, match=r"wants another key \(401"):
        measure(files, server).measure(given)
    with serving(judging(lambda text: says("Hm."))) as server:
        said = r"not one of 7 answers has a score \(7 × the judge's answer has no score\); it said 'Hm\.'"
        with pytest.raises(DataError, match=said):
            measure(files, server, retries=0).measure(given)


def test_fastchats_prompts_where_they_are_given(tmp_path: Path, files: dict[str, str]) -> None:
    file = tmp_path / "judge_prompts.jsonl"
    plain, two = "Q {question} A {answer}\n", "{question_1}|{answer_1}|{question_2}|{answer_2}\n"
    prompts = {
        PLAIN: plain, MATH: f"{{ref_answer_1}} {plain}", PLAIN + TWO_TURNS: two,
        MATH + TWO_TURNS: f"{{ref_answer_1}} {{ref_answer_2}} {two}", "pair-v2": "{question}",
    }  # fmt: skip
    lines = [{"name": name, "system_prompt": "Judge.", "prompt_template": text} for name, text in prompts.items()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serving(judging(by_table)) as server:
        one = measure(files, server, prompts=str(file))
        one.check()
        one.measure(evidence(tmp_path))
        texts = [body["messages"] for body in server.bodies("chat/completions")]
    assert {messages[0]["content"] for messages in texts} == {"Judge."}
    contents = {messages[1]["content"] for messages in texts}
    assert "Two. Q 1 + 1? A policy 101.1\n" in contents
    assert "Two. Four. 1 + 1?|policy 101.1|And 2 + 2?|policy 101.2\n" in contents
    assert "Write of {doors}.|policy 82.1|Longer.|policy 82.2\n" in contents
    file.write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(DataError, match=r"measure\.prompts: it has no prompt single-math-v1"):
        one.check()


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Rating: [[8]]", 8.0), ("[[7.5]] and [[9]]", 7.5), ("Rating: [6]", 6.0), ("as in [1], Rating: [[5]]", 5.0),
        ("[[ 8 ]]", None), ("8/10", None), ("[[11]]", None), ("[[0]]", 0.0), ("[[-3]]", None), ("", None),
    ],
)  # fmt: skip
def test_where_a_score_stands(text: str, score: float | None) -> None:
    assert score_in(text) == score


def test_the_projects_own_prompts_ask_for_fastchats_form() -> None:
    for name, prompt in prompts_of(None).items():
        assert prompt.name == f"mpo-1-{name}" and "Rating: [[5]]" in prompt.system
        assert ("reference" in prompt.system) == ("{ref_answer_1}" in prompt.template) == name.startswith(MATH)
        assert ("{answer_2}" in prompt.template) == name.endswith(TWO_TURNS)


def test_fastchats_own_files() -> None:
    if not EVAL.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    questions = read_questions(str(EVAL / "mt_bench_questions.jsonl"))
    assert len(questions) == 80 and {len(one.turns) for one in questions} == {2}
    assert {one.category: one.temperature for one in questions} == {
        "writing": 0.7, "roleplay": 0.7, "reasoning": 0.0, "math": 0.0, "coding": 0.0, "extraction": 0.0, "stem": 0.1,
        "humanities": 0.1,
    }  # fmt: skip
    references = read_references(str(EVAL / "mt_bench_reference_gpt-4.jsonl"), questions)
    assert sorted(map(int, references)) == list(range(101, 131))


def test_mistakes_are_found_before_anything_is_trained(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    one = measure(files)
    one.check()
    for options, said in (
        ({"url": "https://api.openai.com/v1"}, r"^measure\.key_variable: .* OPENAI_API_KEY is empty"),
        ({"references": None}, r"^measure\.references: has no value, but 1 questions \(coding, math, reasoning\) need"),
        ({"references": "none.jsonl"}, r"^measure\.references: 'none\.jsonl' cannot be read"),
        ({"question_file": "none.jsonl"}, r"^measure\.question_file: 'none\.jsonl' cannot be read"),
        ({"retries": -1}, r"^measure\.retries: -1 is out of range"),
        ({"model": ""}, r"^measure\.model: has no value"),
    ):
        with pytest.raises(UserError, match=said):
            replace(one, **options).check()  # type: ignore[arg-type]
    for line, said in (
        ("{", r"^question_file\.jsonl:2: Expecting property name"),
        ('{"question_id": 1}', r"^question_file\.jsonl:2: no 'turns'"),
        ('{"question_id": 1, "turns": ["a", "b", "c"]}', r"^question_file\.jsonl:2: turns are to be a list of 1 to 2"),
        (json.dumps(QUESTIONS[0]), r"^question_file\.jsonl: two questions have the id 81"),
        (json.dumps({**QUESTIONS[2], "question_id": 7}), r"^references\.jsonl: question 7 \(math\) has no reference"),
    ):
        Path(files["question_file"]).write_text(json.dumps(QUESTIONS[0]) + "\n" + line + "\n")
        with pytest.raises(DataError, match=said):
            one.check()
