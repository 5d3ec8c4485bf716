"""An LLM as judge in points: what it is asked, what its answers are worth, what stops the stage in one line."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpo import endpoint
from mpo.data.store import read_stored_sets, write_sets
from mpo.errors import ConfigError, DataError, UserError
from mpo.score import Item
from mpo.score.judge import NO_LOGPS, UNSURE, Judge
from mpo.score.judge_prompt import conversation_text, response_text
from mpo.stages import score
from mpo.stages.context import StageContext
from mpo.stages.nodes import score as node
from mpo.stages.summary import Summary
from mpo.types import Message, Response, ResponseSet
from tests.unit.sample.loopback import Answer, Loopback, serving
from tests.unit.score.judging import QUESTION, answering, item, judge, options, part, says
from tests.unit.score.test_verdicts import token

CALL = '[{"name": "find", "arguments": {}}]'


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)


def length(body: Any) -> Answer:
    """As many points as the response has words."""
    return says(str(len(part(body, "Response to be graded").split())))


def test_log_probs_order_responses_of_the_same_number() -> None:
    def answer(body: Any) -> Answer:
        sure = 0.9 if "door" in part(body, "Response to be graded") else 0.6
        return says("7", token("7", sure, n6=0.95 - sure, nThe=0.05), token("<|end|>"))

    with serving(answering(answer)) as server:
        scorer = judge("llm_judge", server)
        found = scorer.score([item("Throw it."), item("Hold a door.")])
        bodies = server.bodies("chat/completions")
    assert found == [pytest.approx((0.6 * 7 + 0.35 * 6) / 0.95), pytest.approx((0.9 * 7 + 0.05 * 6) / 0.95)]
    assert scorer.take_warnings() == {}
    for body in bodies:
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge", 0.0, 16)
        assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
        assert [turn["role"] for turn in body["messages"]] == ["user"]
        text = body["messages"][0]["content"]
        assert part(body, "Conversation") == "User:\nName a use of a brick." and "from 1 (of no use) to 9" in text
        assert "length alone is no merit" in text and "{" not in text


def test_a_judge_with_little_probability_on_numbers_is_warned_of() -> None:
    unsure = says("7", token("7", 0.4, nThe=0.3, nA=0.3))
    with serving(answering(lambda body: unsure)) as server:
        scorer = judge("llm_judge", server)
        assert scorer.score([item("a"), item("b")]) == [pytest.approx(7.0)] * 2
    assert scorer.take_warnings() == {UNSURE: 2} and scorer.take_warnings() == {}


@pytest.mark.parametrize(("asked", "warned"), [({}, {NO_LOGPS: 3}), ({"top_logprobs": 0}, {}), ({"highest": 10}, {})])
def test_without_log_probs_the_number_counts_and_answers_keep_their_order(
    asked: dict[str, int], warned: dict[str, int]
) -> None:
    with serving(answering(length)) as one, serving(answering(length)) as other:
        scorer = judge("llm_judge", one, other, **asked)
        assert scorer.score([item("a b c"), item("a"), item("a b")]) == [3.0, 1.0, 2.0]
        bodies = one.bodies("chat/completions"), other.bodies("chat/completions")
        scorer.close()
    assert scorer.take_warnings() == warned
    assert sorted(map(len, bodies)) == [1, 2]
    assert all(("logprobs" in body) == (not asked) for each in bodies for body in each)


def test_a_server_that_fails_is_asked_again_with_the_key_that_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    failing = iter([(500, b"no"), (429, b"wait")])
    with serving(answering(lambda body: next(failing, says("4")))) as server:
        assert judge("llm_judge", server, key_variable="JUDGE_KEY").score([item("a")]) == [4.0]
        assert {headers["authorization"] for _, headers, _ in server.asked} == {"Bearer sk-secret"}
        assert len(server.bodies("chat/completions")) == 3
    failed = r"^score: .* answered 503: busy \(3 times\); look at the server, then run"
    busy = serving(answering(lambda body: (503, b"busy")))
    with busy as server, pytest.raises(UserError, match=failed):
        judge("llm_judge", server).score([item("a"), item("b")])


def test_an_answer_without_a_number_is_asked_for_again_in_the_form_that_is_wanted() -> None:
    def answer(body: Any) -> Answer:
        return says("It is good, 8 or 9.") if len(body["messages"]) == 1 else says("8")

    with serving(answering(answer)) as server:
        assert judge("llm_judge", server).score([item("a")]) == [8.0]
        first, second = server.bodies("chat/completions")
    assert second["messages"][0] == first["messages"][0]
    assert second["messages"][1:] == [
        {"role": "assistant", "content": "It is good, 8 or 9."},
        {"role": "user", "content": "Answer with one whole number from 1 to 9 and nothing else."},
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            says("I will not.\n" * 50),
            r"score\.prompt: the judge gave no verdict in 3 answers; the last one: 'I will no",
        ),
        (says("", ended="length"), r"score\.max_answer_tokens: the judge gave no verdict .*: '', where its tokens end"),
        (says(None), r"score\.prompt: the judge gave no verdict in 3 answers; the last one: ''"),
        ((200, {"choices": []}), r"score\.urls: http.* answered what is no answer of the chat API: {'choices': \[\]}"),
        ((200, {"choices": [{"message": "7"}]}), r"score\.urls: .* is no answer of the chat API"),
        (says("7", {"token": "7"}), r"score\.urls: .* is no answer of the chat API"),
        ((400, {"error": {"message": "8192 tokens at most"}}), r"refused the request \(400\): 8192 tokens at most"),
    ],
)
def test_what_is_no_verdict_in_the_end_is_one_line(answer: Answer, said: str) -> None:
    with (
        serving(answering(lambda body: answer)) as server,
        pytest.raises((DataError, ConfigError), match=said) as caught,
    ):
        judge("llm_judge", server).score([item("a")])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_server_of_another_model_is_refused_before_anything_is_asked() -> None:
    with serving(answering(length)) as server:
        with pytest.raises(ConfigError, match=r"^score\.model: http.* serves other, judge, not gpt; name one that"):
            judge("llm_judge", server, model="gpt").score([item("a")])
        assert judge("llm_judge", server, model="owner/judge").score([item("a")]) == [1.0]
        (body,) = server.bodies("chat/completions")
    assert body["model"] == "judge"


def test_every_part_of_a_conversation_is_shown_under_its_name() -> None:
    turns = (
        Message("system", "Be brief."),
        Message("user", "Find {response} it.", name="Ann"),
        Message("assistant", "", reasoning="Where?", tool_calls=CALL),
        Message("tool", "found", tool_call_id="c1", name="find"),
        Message("user", ""),
    )
    tools = '[{"type": "function"}]'
    shown = (
        f"Tools that the assistant may call (JSON):\n{tools}\n\nSystem:\nBe brief."
        "\n\nUser (Ann):\nFind {response} it."
        f"\n\nAssistant, thinking:\nWhere?\n\nAssistant, calling tools (JSON):\n{CALL}"
        "\n\nTool (find, call c1):\nfound\n\nUser:\n(no text)"
    )
    assert conversation_text(turns, tools) == shown
    with serving(answering(length)) as server:
        assert judge("llm_judge", server).score([Item(turns, Message("assistant", "a b"), tools)]) == [2.0]
        (body,) = server.bodies("chat/completions")
    assert part(body, "Conversation") == shown
    assert response_text(Message("assistant", "")) == "(no text)"
    assert response_text(Message("assistant", "Yes.", reasoning="Hm")) == (
        "Assistant, thinking:\nHm\n\nAssistant:\nYes."
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"urls": []}, "score.urls: has no value; give addresses: 'score.urls="),
        ({"urls": ["http://me:secret@host/v1"]}, "score.urls: the address holds a name, a password or a query"),
        ({"model": ""}, "score.model: has no value"),
        ({"model": "???"}, "score.model: has no value; give one"),
        ({"name": "a/b"}, "score.name: 'a/b' cannot name a score"),
        ({"concurrency": 0}, "score.concurrency: 0 is out of range"),
        ({"attempts": 0}, "score.attempts: 0 is out of range"),
        ({"timeout_s": 0.0}, "score.timeout_s: 0 is out of range"),
        ({"top_logprobs": 21}, "score.top_logprobs: 21 is out of range"),
        ({"max_answer_tokens": 0}, "score.max_answer_tokens: 0 is out of range"),
        ({"lowest": 5, "highest": 5}, "score.highest: 5 to 5 is no scale"),
        ({"prompt": "{criteria} {conversation} {lowest} {highest}"}, "score.prompt: has no {response}; put {response}"),
        (
            {"prompt": "{criteria} {conversation} {response} {lowest} {highest} {respons} {\"a\": 1}"},
            "score.prompt: has {respons}, which nothing fills; leave it out",
        ),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line_before_anything_is_asked(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        judge("llm_judge", **wrong)
    assert str(caught.value).startswith(said) and "secret" not in str(caught.value)


def in_stage(tmp_path: Path, kind: str, server: Loopback, **others: Any) -> Summary:
    """``train.parquet`` of ``tmp_path / "sets"`` scored."""
    (tmp_path / "out").mkdir(exist_ok=True)
    given, free = options(kind, server, **others), Judge.change_no_score
    config = node.Config({kind: {key: value for key, value in given.items() if key not in free}}, {}, [])
    settings = node.Settings({kind: {key: given[key] for key in free}})
    score.run(StageContext("score", config, settings, node.Inputs(tmp_path / "sets"), tmp_path / "out"))
    return Summary.read(tmp_path / "out")


def stored(tmp_path: Path, sets: list[list[str]]) -> None:
    (tmp_path / "sets").mkdir()
    rows = [ResponseSet(str(i), QUESTION, tuple(map(Response, texts))) for i, texts in enumerate(sets)]
    write_sets(tmp_path / "sets" / "train.parquet", rows)


def test_a_stopped_stage_asks_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "SETS_AT_ONCE", 1)
    stored(tmp_path, [["a", "a b"], ["a b c", "a b c d"]])
    count = itertools.count()

    def once(at: int) -> Callable[[Any], Answer]:
        return lambda body: length(body) if next(count) < at else (400, b"enough")

    with serving(answering(once(2))) as server, pytest.raises(ConfigError, match="enough"):
        in_stage(tmp_path, "llm_judge", server)
    with serving(answering(length)) as server:
        summary = in_stage(tmp_path, "llm_judge", server)
        graded = sorted(part(body, "Response to be graded") for body in server.bodies("chat/completions"))
    assert graded == ["a b c", "a b c d"]
    found = [[one.scores["llm_judge"] for one in each.responses]
             for each in read_stored_sets(tmp_path / "out" / "train.parquet")]  # fmt: skip
    assert found == [[1.0, 2.0], [3.0, 4.0]]
    assert (
        summary.warnings == {"train": {f"llm_judge: {NO_LOGPS}": 4}} and summary.facts["train"]["mean_llm_judge"] == 2.5
    )


def test_the_key_is_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    stored(tmp_path, [["a", "a b"]])
    with serving(answering(length)) as server:
        in_stage(tmp_path, "llm_judge", server)
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    refusing = serving(lambda path, body: (401, {"error": {"message": "bad key sk-secret"}}))
    with refusing as server, pytest.raises(ConfigError, match="score.key_variable") as caught:
        judge("llm_judge", server).score([item("a")])
    assert "secret" not in str(caught.value)
