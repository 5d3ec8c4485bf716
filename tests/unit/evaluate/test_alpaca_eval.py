"""AlpacaEval 2 by its package against a judge on loopback: rates, verdicts that are missing, a stop, mistakes."""

from __future__ import annotations

import importlib.metadata
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpo.errors import ConfigError, DataError, ProcessError
from mpo.evaluate.alpaca_eval import AlpacaEval
from mpo.evaluate.base import Evidence
from mpo.evaluate.questions import Answer
from mpo.evaluate.records import Estimate
from tests.unit.sample.loopback import Loopback, serving

COUNT = 24
ROWS = [
    {"instruction": f"Instruction {i}", "output": "reference " * (i % 5 + 1), "generator": "gpt4", "dataset": "d"}
    for i in range(COUNT)
]


def preferring(share_of: Any) -> Any:
    """A judge that gives the answer with GOOD inside ``share_of(body)`` of its probability; other values are statuses
    or bodies."""

    def answer(path: str, body: Any) -> tuple[int, Any]:
        import math

        said = body["messages"][-1]["content"]
        share = share_of(said)
        if not isinstance(share, float):
            return share
        first, second = said.index('"m"'), said.index('"M"')
        good_first = "GOOD" in said[first:second]
        chance = {"m": share if good_first else 1 - share, "M": 1 - share if good_first else share}
        top = [{"token": token, "logprob": math.log(p)} for token, p in chance.items()]
        content = [{**top[0], "top_logprobs": top}]
        message = {"role": "assistant", "content": top[0]["token"]}
        choice = {"index": 0, "message": message, "finish_reason": "length", "logprobs": {"content": content}}
        return 200, {"choices": [choice], "usage": {"total_tokens": 7}}

    return answer


def nonsense() -> tuple[int, Any]:
    message = {"role": "assistant", "content": "Hm"}
    top = [{"token": "Hm", "logprob": 0.0}]
    choice = {"index": 0, "message": message, "logprobs": {"content": [{**top[0], "top_logprobs": top}]}}
    return 200, {"choices": [choice]}


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    file = tmp_path / "model_outputs.json"
    file.write_text(json.dumps(ROWS))
    return file


def evidence(tmp_path: Path, temperatures: tuple[float, ...] = (0.0,), seeds: tuple[int, ...] = (0,)) -> Evidence:
    answers = [
        Answer(str(i + 1), (f"GOOD answer {i} " * (1 + (i * 7 + seed) % 4),), temperature, seed, True)
        for temperature in temperatures
        for seed in seeds
        for i in range(COUNT)
    ]
    said: list[str] = []
    (tmp_path / "out").mkdir(exist_ok=True)
    found = Evidence((), None, None, 0, lambda *_: None, tuple(answers), (), tmp_path / "out", said.append)
    object.__setattr__(found, "said", said)
    return found


def measure(reference: Path, server: Loopback, **options: Any) -> AlpacaEval:
    return AlpacaEval(str(reference), url=server.url, model="judge", attempts=2, timeout_s=5.0, **options)


def by_metric(estimates: list[Estimate]) -> dict[str, Estimate]:
    return {f"{each.metric}@{each.temperature:g}": each for each in estimates}


@pytest.mark.slow  # importing the package takes seconds
def test_win_rates_at_each_temperature_over_seeds(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    with serving(preferring(lambda said: 0.75)) as server:
        one = measure(reference, server, temperatures=[0.0, 1.0], seeds=[0, 1], key_variable="MY_KEY")
        given = evidence(tmp_path, (0.0,))
        sampled = evidence(tmp_path, (1.0,), (0, 1))
        given = replace(given, answers=given.answers + sampled.answers)
        findings = one.measure(given)
    found = by_metric(findings.estimates)
    assert [(each.metric, len(set(each.prompts))) for each in findings.by_prompt] == 2 * [
        ("win_rate", COUNT), ("length", COUNT)
    ]  # fmt: skip
    for at in ("0", "1"):
        rate = found[f"win_rate@{at}"]
        assert rate.value == pytest.approx(75, abs=1e-3) and rate.n == COUNT and rate.unit == "%"
        assert rate.judge == "weighted_alpaca_eval_gpt4_turbo with judge" and rate.baseline == "gpt4"
        assert 50 < found[f"length_controlled_win_rate_by_mpo@{at}"].value < 90
    assert found["length@0"].baselines[0].value == sum(len(row["output"]) for row in ROWS) / COUNT
    bodies = server.bodies("chat/completions")
    assert len(bodies) == 2 * COUNT  # seed 0 gives the same answers at both temperatures: they are judged once
    assert {body["model"] for body in bodies} == {"judge"}
    assert all((body["max_tokens"], body["temperature"], body["top_logprobs"]) == (1, 1, 5) for body in bodies)
    assert all(headers["authorization"] == "Bearer sesame" for _, headers, _ in server.asked)
    out = tmp_path / "out"
    assert not any("sesame" in file.read_text() for file in out.iterdir())
    record = json.loads((out / "alpaca_eval.json").read_text())
    assert record["length control"] == "the project's own" and record["missing"] == 0
    from mpo.evaluate.winrate import main

    assert main([str(out / "annotations.json"), "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    models = {each["model"]: each for each in group["models"]}
    assert models["policy@1"]["win_rate"] == found["win_rate@1"].value and models["policy@1"]["repeated"] == COUNT


@pytest.mark.slow  # importing the package takes seconds
def test_what_has_no_verdict_is_counted_and_asked_again_the_next_time(tmp_path: Path, reference: Path) -> None:
    asked: dict[str, int] = {}
    lock = threading.Lock()

    def share(said: str) -> Any:
        with lock:
            asked[said] = asked.get(said, 0) + 1
        for number, failure in {
            "Instruction 3\n": nonsense(),
            "Instruction 4\n": (400, {"error": {"message": "content policy"}}),
            "Instruction 5\n": (429, {"error": {"message": "You exceeded your current quota"}}),
        }.items():
            if number in said.replace('"', "\n") and healthy[0] is False:
                return failure
        return 1.0 - 1e-9

    healthy = [False]
    with serving(preferring(share)) as server:
        one, given = measure(reference, server), evidence(tmp_path)
        found = by_metric(one.measure(given).estimates)
        assert found["win_rate@0"].value == pytest.approx(100) and found["win_rate@0"].n == COUNT - 3
        assert found["pairs_without_verdict@0"].value == 3
        (said,) = given.said  # type: ignore[attr-defined]
        assert said.startswith("3 of 24 pairs have no verdict and are left out (")
        assert "1 the judge's server refused the request" in said and "1 the judge's server gave no answer" in said
        assert sorted(asked.values()) == [1] * (COUNT - 1) + [2]  # the one out of quota was tried again
        healthy[0] = True
        asked.clear()
        found = by_metric(one.measure(given).estimates)
        assert found["win_rate@0"].n == COUNT and sorted(asked.values()) == [1, 1, 1]


@pytest.mark.slow  # importing the package takes seconds
def test_a_judge_that_is_gone_stops_the_stage_which_goes_on_later(tmp_path: Path, reference: Path) -> None:
    gone = threading.Event()
    count = [0]

    def share(said: str) -> Any:
        count[0] += 1
        if count[0] > 8:
            gone.set()
        return (503, {"error": {"message": "down"}}) if gone.is_set() else 0.75

    with serving(preferring(share)) as server:
        one, given = measure(reference, server, concurrency=2), evidence(tmp_path)
        with pytest.raises(ProcessError, match=r"answered 503: down \(2 times\).*goes on from where it was"):
            one.measure(given)
        gone.clear()
        count[0] = -1000
        server.asked.clear()
        assert by_metric(one.measure(given).estimates)["win_rate@0"].n == COUNT
        assert len(server.asked) == COUNT - 8
    with serving(lambda path, body: (401, {"error": {"message": "who are you"}})) as server:
        (tmp_path / "out" / "judged.json").unlink()
        with pytest.raises(ConfigError, match=r"wants another key \(401\)"):
            measure(reference, server).measure(given)
    with serving(lambda path, body: nonsense()) as server:
        (tmp_path / "out" / "judged.json").write_text("[{")
        with pytest.raises(DataError, match=r"not one of 24 pairs has a verdict \(24 × the judge's answer has no"):
            measure(reference, server).measure(given)
    assert "damaged" in given.said[-1]  # type: ignore[attr-defined]


@pytest.mark.slow  # importing the package takes seconds
def test_length_control_by_the_package_where_its_file_is_given(tmp_path: Path, reference: Path) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    lines = ["index,model,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for model, sign in (("concise", 1.0), ("verbose", -1.0)):
        for i in range(COUNT):
            lines.append(f"{i},{model},{0.5 - sign * 0.2},{sign + draw.normal() / 9},{draw.normal()},False")
    data = tmp_path / "df_gamed.csv"
    data.write_text("\n".join(lines) + "\n")
    with serving(preferring(lambda said: 0.6 + 0.01 * (len(said) % 10))) as server:
        found = by_metric(measure(reference, server, length_data=str(data)).measure(evidence(tmp_path)).estimates)
        controlled = found["length_controlled_win_rate@0"]
        assert 40 < controlled.value < 90 and controlled.standard_error is not None
        assert "alpaca_eval 0.6.6" in (tmp_path / "out" / "alpaca_eval.json").read_text()
        data.write_text("\n".join(lines[:11]) + "\n")
        with pytest.raises(DataError, match="it is about 10 instructions, the reference has 24"):
            measure(reference, server, length_data=str(data)).measure(evidence(tmp_path))


def test_mistakes_are_found_before_anything_is_trained(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    one = AlpacaEval(str(reference), url="http://localhost:1/v1")
    one.check()
    for options, message in (
        ({"annotator": "weighted_alpaca_eval_gpt5"}, "^measure.annotator: .* is no annotator"),
        (
            {"url": "https://api.openai.com/v1"},
            "^measure.key_variable: .* OPENAI_API_KEY is empty",
        ),
        ({"name": "gpt4"}, "^measure.name: the reference answers are by 'gpt4' too"),
        ({"length_data": "none.csv"}, "^measure.length_data: there is no file 'none.csv'"),
        ({"temperatures": [-1.0]}, "^measure.temperatures: -1 is out of range"),
        ({"reference": "none.json"}, "^measure.reference: 'none.json' cannot be read"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            replace(one, **options).check()  # type: ignore[arg-type]
    for rows, message in (
        ([*ROWS, ROWS[2]], "row 25: the instruction of row 3 again"),
        ([*ROWS, {"instruction": "x", "output": "y"}], "row 25: no text as generator"),
        ([*ROWS, {**ROWS[0], "instruction": "x", "generator": "other"}], "answers by 2 generators"),
        ({}, "no list of records"),
    ):
        reference.write_text(json.dumps(rows))
        with pytest.raises(DataError, match=message):
            one.check()
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.6.2" if name == "alpaca_eval" else version(name))
    with pytest.raises(ConfigError, match=r"^measure: alpaca_eval 0.6.2 is installed; pip install alpaca-eval==0.6.6"):
        one.check()
