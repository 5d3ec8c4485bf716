"""An LLM as judge of pairs: both orders, scores by hand, ties, position bias, a bounded number of opponents."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mpo.errors import ConfigError
from mpo.score.checked import scores_of_sets
from mpo.score.judge import NO_LOGPS, UNSURE
from mpo.score.llm_judge_pairwise import FIRST_WINS, FLIPPED, ORDER_DECIDES, meetings
from mpo.stages.nodes.score import MEANS
from tests.unit.sample.loopback import Answer, Loopback, serving
from tests.unit.score.judging import answering, item, judge, part, says
from tests.unit.score.test_llm_judge import in_stage, stored
from tests.unit.score.test_verdicts import token

KIND = "llm_judge_pairwise"


def read(body: Any) -> tuple[str, str]:
    return part(body, "Response A"), part(body, "Response B")


def longer(body: Any) -> Answer:
    """The one with more words, C for equally many."""
    first, second = (len(text.split()) for text in read(body))
    return says("C" if first == second else "A" if first > second else "B")


def pairs_asked(server: Loopback) -> Counter[tuple[str, str]]:
    return Counter(read(body) for body in server.bodies("chat/completions"))


def test_each_pair_is_asked_in_both_orders_and_letters_are_wins() -> None:
    with serving(answering(longer)) as server:
        scorer = judge(KIND, server)
        assert scorer.score([item("a"), item("b b b"), item("c c")]) == [0.0, 1.0, 0.5]
        assert pairs_asked(server) == Counter(
            [("a", "b b b"), ("b b b", "a"), ("a", "c c"), ("c c", "a"), ("b b b", "c c"), ("c c", "b b b")]
        )
    assert scorer.take_means() == {FIRST_WINS: (3.0, 6), FLIPPED: (0.0, 3)}
    assert scorer.take_warnings() == {NO_LOGPS: 3} and scorer.take_means() == {}


def test_log_probs_give_win_probabilities() -> None:
    strength = {"a": 1.0, "b": 2.0, "c": 5.0}

    def answer(body: Any) -> Answer:
        first, second = (strength[text] for text in read(body))
        p = 0.8 * first / (first + second)  # and 0.2 for a tie, of which 0.02 goes elsewhere
        tops = {"A": p, "B": 0.8 - p, "C": 0.18, "The": 0.02}
        best = max(tops, key=lambda name: tops[name])
        alternatives = [{"token": name, "logprob": math.log(value)} for name, value in tops.items()]
        return says(best, {"token": best, "logprob": math.log(tops[best]), "top_logprobs": alternatives})

    with serving(answering(answer)) as server:
        scorer = judge(KIND, server)
        found = scorer.score([item(text) for text in strength])

    def wins(one: str, other: str) -> float:
        return (0.8 * strength[one] / (strength[one] + strength[other]) + 0.09) / 0.98

    by_hand = [sum(wins(one, other) for other in strength if other != one) / 2 for one in strength]
    assert found == pytest.approx(by_hand) and sum(found) == pytest.approx(1.5)
    assert scorer.take_warnings() == {}


def test_equal_texts_are_a_tie_that_nobody_is_asked_about() -> None:
    with serving(answering(longer)) as server:
        scorer = judge(KIND, server)
        assert scores_of_sets(scorer, [[item("a"), item("a")], [item("x")], []]) == [0.5, 0.5, 0.5]
        assert server.asked == []
        assert scorer.score([item("a"), item("a"), item("b b")]) == [0.25, 0.25, 1.0]
        assert pairs_asked(server) == Counter([("a", "b b"), ("b b", "a")])
        assert scorer.score([item("a"), item("b")]) == [0.5, 0.5]  # the judge says so


def test_a_judge_that_likes_the_first_is_found_out() -> None:
    def answer(body: Any) -> Answer:
        return says("A", token("A", 0.7, nB=0.3)) if "far" not in read(body) else longer(body)

    with serving(answering(answer)) as server:
        scorer = judge(KIND, server, top_logprobs=5)
        assert scorer.score([item("a"), item("b b"), item("far")]) == pytest.approx([0.5, 0.75, 0.25])
        assert {body["top_logprobs"] for body in server.bodies("chat/completions")} == {5}
    total, count = scorer.take_means()[FIRST_WINS]
    assert (total, count) == (pytest.approx(0.7 * 2 + 0.5 * 2 + 1.0), 6)
    assert scorer.take_warnings() == {ORDER_DECIDES: 2, NO_LOGPS: 3}


def test_little_probability_on_letters_is_a_warning_of_both_responses() -> None:
    with serving(answering(lambda body: says("B", token("B", 0.4, nA=0.4, nWell=0.2)))) as server:
        scorer = judge(KIND, server)
        assert scorer.score([item("a"), item("b")]) == pytest.approx([0.5, 0.5])
    assert scorer.take_warnings() == {UNSURE: 2}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("opponents", [2, 4, None])
def test_each_response_meets_equally_many_others_once(count: int, opponents: int | None) -> None:
    pairs = meetings(count, opponents)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) and all(i != j for i, j in pairs)
    met = Counter(i for pair in pairs for i in pair)
    assert set(met.values()) == {min(opponents or count, count - 1)} and len(met) == count


def test_fewer_opponents_cost_fewer_requests() -> None:
    texts = ["a", "b b", "c c c", "d d d d", "e e e e e", "f f f f f f"]
    with serving(answering(longer)) as server:
        scores = judge(KIND, server, opponents=2).score([item(text) for text in texts])
        assert len(server.bodies("chat/completions")) == 6 * 2
    assert scores == [0.0, 0.5, 0.5, 0.5, 0.5, 1.0]  # of the neighbours in a circle


@pytest.mark.parametrize("opponents", [0, 1, 3])
def test_a_number_of_opponents_that_cannot_be_shared_out_is_one_line(opponents: int) -> None:
    with pytest.raises(ConfigError, match=f"^score.opponents: {opponents} opponents for each response; give an even"):
        judge(KIND, opponents=opponents)


def test_an_answer_without_a_letter_is_asked_for_again() -> None:
    def answer(body: Any) -> Answer:
        return longer(body) if len(body["messages"]) == 3 else says("A or B, hard to tell")

    with serving(answering(answer)) as server:
        assert judge(KIND, server).score([item("a"), item("b b")]) == [0.0, 1.0]
        last = server.bodies("chat/completions")[-1]["messages"][-1]["content"]
    assert last.startswith("Answer with one letter, A or B, or C if")


def test_the_stage_reports_position_bias(tmp_path: Path) -> None:
    stored(tmp_path, [["a", "b b"], ["a", "c c c"], ["d", "e"]])
    first = answering(lambda body: says("A") if "a" not in read(body) else longer(body))
    with serving(first) as server:
        summary = in_stage(tmp_path, KIND, server, top_logprobs=0)
    facts = summary.facts["train"]
    assert facts[MEANS] == {f"{KIND}: {FIRST_WINS}": 4 / 6, f"{KIND}: {FLIPPED}": 1 / 3}
    assert summary.warnings == {"train": {f"{KIND}: {ORDER_DECIDES}": 2}}
    assert f"{KIND}, train: {ORDER_DECIDES}: 2 of 6 responses" in (tmp_path / "out" / "warnings.txt").read_text()
