"""Win rates by a judge: both orders by hand, the same figures from the annotations, faults, what is kept."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mpo import endpoint
from mpo.errors import ConfigError, DataError, UserError
from mpo.evaluate.winrate import main
from mpo.score import Item, Scorer
from mpo.testbed.reward import true_reward
from tests.unit.evaluate.judged_samples import Texts, by_key, evidence, judged, measure, samples
from tests.unit.sample.loopback import Answer, serving
from tests.unit.score.judging import answering, options, part, says
from tests.unit.score.test_verdicts import token

RM = "mpo.score.reward_model.RewardModel"
TEXTS: Texts = [("a b", "c"), ("d", "e f g"), ("h i", "j k"), ("l m n o", "p"), ("same", "same"), ("q", "r s t")]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.001)


def read(body: Any) -> tuple[str, str]:
    return part(body, "Response A"), part(body, "Response B")


def likes(first_bonus: float = 0.0, per_word: float = 1.0) -> Callable[[Any], Answer]:
    """A judge with log-probs that likes words, and the answer that it reads first."""

    def answer(body: Any) -> Answer:
        one, two = (len(text.split()) for text in read(body))
        p = 1 / (1 + math.exp(-per_word * (one - two) - first_bonus))
        return says("A", token("A", p, nB=1 - p)) if p > 0.5 else says("B", token("B", 1 - p, nA=p))

    return answering(answer)


def win(baseline: str, policy: str, bonus: float) -> tuple[float, float]:
    """The policy's share of the win read second and first."""
    gap = len(policy.split()) - len(baseline.split())
    return tuple(1 / (1 + math.exp(-gap + sign * bonus)) for sign in (1, -1))  # type: ignore[return-value]


def test_both_orders_by_hand_and_the_same_figures_from_the_annotations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(likes(first_bonus=0.4)) as server:
        found = judged(measure(server), evidence(samples(TEXTS)))
        asked = server.bodies("chat/completions")
    assert len(asked) == 2 * 5  # nobody is asked about equal answers
    wins = [0.5 if a == b else sum(win(a, b, 0.4)) / 2 for a, b in TEXTS]
    key = by_key(found)
    assert list(key) == [f"{metric}/judge@0.7" for metric in (
        "win_rate", "length_controlled_win_rate", "position_bias", "order_decides", "missing_verdicts")]  # fmt: skip
    rate = key["win_rate/judge@0.7"]
    assert (rate.n, rate.baseline, rate.temperature) == (6, "starting policy", 0.7)
    mean = sum(wins) / 6
    assert rate.value == pytest.approx(mean)
    assert rate.standard_error == pytest.approx(math.sqrt(sum((one - mean) ** 2 for one in wins) / 5 / 6))
    (by_prompt,) = found.findings.by_prompt
    assert by_prompt.about == rate.about and by_prompt.values == pytest.approx(wins)
    firsts = [(1 - second + first) / 2 - 0.5 for second, first in (win(a, b, 0.4) for a, b in TEXTS if a != b)]
    assert key["position_bias/judge@0.7"].value == pytest.approx(sum(firsts) / 5)
    assert key["order_decides/judge@0.7"].value == 1 / 5  # of "h i" and "j k", equally long
    assert (key["missing_verdicts/judge@0.7"].value, found.warnings) == (0.0, [])
    ((name, records),) = found.files.items()
    file = tmp_path / name
    file.write_text(json.dumps(records))
    assert main([str(file), "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    (model,) = group["models"]
    assert (name, group["judge"]) == ("annotations@0.7.json", "judge")
    assert model["win_rate"] / 100 == rate.value and model["standard_error"] / 100 == rate.standard_error
    controlled = key["length_controlled_win_rate/judge@0.7"]
    assert model["length_controlled"] / 100 == controlled.value
    assert model["length_controlled_error"] / 100 == controlled.standard_error
    record = records[0]
    assert (record["instruction"], record["output_1"], record["output_2"]) == ("Question 0?", "a b", "c")
    second, first = win("a b", "c", 0.4)
    assert record["preference_baseline_first"] - 1 == pytest.approx(second)
    assert record["preference_policy_first"] - 1 == pytest.approx(first)
    assert record["judge"] == "judge" and len(record["prompt_version"]) == 8


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((429, {"error": {"message": "You exceeded your current quota"}}), r"429: You exceeded your current quota \(3"),
        ((503, b"busy"), r"503: busy \(3 times\)"),
        ((401, b"no"), r"wants another key \(401\)"),
    ],
)
def test_what_is_judged_before_a_fault_is_kept_and_not_asked_again(tmp_path: Path, fault: Answer, said: str) -> None:
    judge, count = likes(), itertools.count()

    def failing(path: str, body: Any) -> Answer:
        return judge(path, body) if path == "models" or next(count) < 4 else fault

    given = evidence(samples(TEXTS), verdicts=tmp_path / "verdicts")
    one_by_one = {"judge": {**options("llm_judge_pairwise"), "concurrency": 1}}
    with serving(failing) as server, pytest.raises(UserError, match=said) as caught:
        measure(judges={"judge": {**one_by_one["judge"], "urls": [server.url]}}).measure(given)
    assert "(4 of 10 verdicts are kept)" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.where == "measure.judges.judge"
    with serving(judge) as server:
        found = measure(server).measure(given)
        assert len(server.bodies("chat/completions")) == 6
        assert measure(server).measure(given).estimates == found.estimates
        assert len(server.bodies("chat/completions")) == 6
        other = {"judge": options("llm_judge_pairwise", server, criteria="- It is short.")}
        measure(judges=other).measure(given)
        assert len(server.bodies("chat/completions")) == 16  # another wording


def test_what_is_being_asked_when_a_fault_comes_is_kept_too(tmp_path: Path) -> None:
    judge, failed = likes(), threading.Event()

    def failing(path: str, body: Any) -> Answer:
        if path == "models":
            return judge(path, body)
        if read(body) == ("a b", "c"):
            failed.set()
            return 401, b"no"
        failed.wait(2)
        return judge(path, body)

    with serving(failing) as server, pytest.raises(ConfigError, match=r"\(9 of 10 verdicts are kept\)"):
        measure(server).measure(evidence(samples(TEXTS), verdicts=tmp_path))


def test_a_time_out_is_one_line(tmp_path: Path) -> None:
    never = threading.Event()

    def slow(path: str, body: Any) -> Answer:
        return likes()(path, body) if path == "models" else (never.wait(2), (503, b""))[1]

    with serving(slow) as server:
        judge = options("llm_judge_pairwise", server, timeout_s=0.05, attempts=2)
        with pytest.raises(UserError, match=r"gave no answer within 0.05 s \(2 times\) \(0 of 10 verdicts are kept\)"):
            measure(judges={"judge": judge}).measure(evidence(samples(TEXTS), verdicts=tmp_path))
        never.set()


def nonsense_about(word: str, answer: Answer) -> Callable[[str, Any], Answer]:
    return answering(lambda body: answer if word in read(body) else likes()("chat/completions", body)[0:2])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says("I would rather not say."), "the answer has no verdict"),
        (says(""), "the answer was empty"),
        (says("Let me think", ended="length"), "the answer was cut at max_answer_tokens"),
        ((400, {"error": {"message": "4096 tokens at most"}}), "the question was refused"),
    ],
)
def test_missing_verdicts_are_neither_wins_nor_losses(answer: Answer, reason: str) -> None:
    with serving(nonsense_about("r s t", answer)) as server:
        found = judged(measure(server, most_missing=0.2), evidence(samples(TEXTS)))
        fewer = measure(server).measure(evidence(samples(TEXTS[:5])))
        with pytest.raises(DataError) as caught:
            measure(server, most_missing=0.19).measure(evidence(samples(TEXTS)))
    key, other = by_key(found), by_key(fewer)
    assert key["win_rate/judge@0.7"].value == other["win_rate/judge@0.7"].value
    assert (key["missing_verdicts/judge@0.7"].value, key["win_rate/judge@0.7"].n) == (pytest.approx(1 / 6), 5)
    assert found.warnings == [f"judge: 2 of 10 questions have no verdict: {reason}"]
    assert [math.isnan(value) for value in found.findings.by_prompt[0].values] == [False] * 5 + [True]
    record = found.files["annotations@0.7.json"][-1]
    assert (record["preference"], record["missing"]) == (None, [reason, reason])
    said = f"2 of 10 questions have no verdict, more than 0.19 of them (2: {reason}); the last: "
    assert said in str(caught.value) and re.search(r"\([0-8] of 10 verdicts are kept\)", str(caught.value))
    assert str(caught.value).startswith("measure.judges.judge: ")


def test_a_judge_of_nonsense_alone_is_not_asked_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpo.score.judge.AT_ONCE", 32)
    with serving(answering(lambda body: says("Hm."))) as server:
        many = samples([("a", f"b {n}") for n in range(300)])
        with pytest.raises(DataError, match=r"31 of 600 questions have no verdict, more than 0.05 of them \(31: the a"):
            measure(server).measure(evidence(many))
        assert len(server.bodies("chat/completions")) <= 3 * 32
    all_missing = {"judge": options("llm_judge_pairwise", attempts=1)}
    with serving(answering(lambda body: says("Hm."))) as server:
        all_missing["judge"]["urls"] = [server.url]
        found = by_key(measure(judges=all_missing, most_missing=1.0).measure(evidence(samples(TEXTS[:2]))))
    assert math.isnan(found["win_rate/judge@0.7"].value) and found["missing_verdicts/judge@0.7"].value == 1.0


def test_a_server_of_another_model_is_refused() -> None:
    with serving(likes()) as server:
        judges = {"mine": options("llm_judge_pairwise", server, model="gpt")}
        with pytest.raises(ConfigError, match=r"^measure\.judges\.mine\.model: .* not gpt"):
            measure(judges=judges).measure(evidence(samples(TEXTS)))
        assert server.bodies("chat/completions") == []


def test_repeats_give_the_judges_own_error(tmp_path: Path) -> None:
    said = itertools.cycle([says("A"), says("B"), says("B")])
    with serving(answering(lambda body: next(said))) as server:
        judges = {"judge": options("llm_judge_pairwise", server, concurrency=1, top_logprobs=0)}
        found = judged(measure(judges=judges, repeats=3), evidence(samples(TEXTS), verdicts=tmp_path))
        assert len(server.bodies("chat/completions")) == 30
    key = by_key(found)
    assert key["win_rate_judge_error/judge@0.7"].value > 0
    assert key["length_controlled_win_rate_judge_error/judge@0.7"].value > 0
    records = found.files["annotations@0.7.json"]
    assert [one["repeat"] for one in records[:3]] == [0, 1, 2] and len(records) == 18


def words(prompt: str, response: str) -> float:
    return float(len(response.split()))


def test_scores_decide_and_judges_agree_or_not() -> None:
    longer = {"_target_": "mpo.score.function.FunctionScorer", "function": f"{__name__}.words"}
    with serving(likes(per_word=-3.0)) as server:
        judges = {"long": longer, "short": options("llm_judge_pairwise", server), "again": longer}
        found = judged(measure(judges=judges), evidence(samples(TEXTS), samples(TEXTS[:2], 0.0)))
    key = by_key(found)
    assert key["win_rate/long@0.7"].value == pytest.approx((0 + 1 + 0.5 + 0 + 0.5 + 1) / 6)
    assert "position_bias/long@0.7" not in key and "position_bias/short@0.7" in key
    assert key["agreement/long and again@0.7"].value == key["kappa/long and again@0.7"].value == 1.0
    # They agree on the two ties alone, of six pairs: 2 wins, 2 losses and 2 ties each.
    assert key["agreement/long and short@0.7"].value == pytest.approx(2 / 6)
    assert key["kappa/long and short@0.7"].value == pytest.approx((2 / 6 - 1 / 3) / (1 - 1 / 3), abs=1e-12)
    assert key["agreement/long and short@0"].value == 0.0 and set(found.files) == {
        "annotations@0.7.json", "annotations@0.json",
    }  # fmt: skip
    record = found.files["annotations@0.7.json"][0]
    assert (record["annotator"], record["score_1"], record["score_2"]) == ("long", 2.0, 1.0)


@dataclass(frozen=True)
class Short(Scorer):
    """A scorer of the user's own."""

    def score(self, items: Sequence[Item]) -> list[float]:
        return [-float(len(one.response.content)) for one in items]


def test_a_scorer_of_ones_own_may_judge_where_it_is_allowed() -> None:
    made = measure(judges={"short": {"_target_": f"{__name__}.Short"}})
    made.check()
    allowed = dataclasses.replace(evidence(samples(TEXTS[:2])), allow_targets=("tests",))
    found = by_key(made.measure(allowed))
    assert found["win_rate/short@0.7"].value == 0.5
    with pytest.raises(ConfigError, match=r"^measure\.judges\.short\._target_: .* allow it:"):
        made.measure(evidence(samples(TEXTS[:2])))


@pytest.mark.parametrize(
    ("options_", "said"),
    [
        ({"repeats": 0}, "measure.repeats: 0 is out of range"),
        ({"most_missing": 1.5}, "measure.most_missing: 1.5 is out of range"),
        ({"judges": {"a/b": {}}}, "measure.judges: 'a/b' cannot name a judge"),
        ({"judges": {"a": "armorm"}}, "measure.judges.a: 'armorm' is no class with options"),
        ({"judges": {"score": {"_target_": RM, "path": "a/b", "pth": 1}}}, "measure.judges.score.pth: RewardModel has"),
    ],
)
def test_wrong_options_are_one_line(options_: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        measure(**options_)
    assert str(caught.value).startswith(said)


def test_what_a_judge_finds_wrong_is_said_at_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^measure\.judges\.rm\.path: there is no folder"):
        measure(judges={"rm": {"_target_": RM, "path": "./nowhere"}}).check()
    testbed = {"_target_": "mpo.score.function.FunctionScorer", "function": f"{true_reward.__module__}.none"}
    with pytest.raises(ConfigError, match=r"^measure\.judges\.f\.function: cannot import"):
        measure(judges={"f": testbed}).check()
