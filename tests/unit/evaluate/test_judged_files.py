"""Judged win rates: a file of answers as the baseline, and how far judges agree."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mpo.errors import DataError
from mpo.evaluate.judged_win_rate.asking import Asked, Decision
from mpo.evaluate.judged_win_rate.estimates import agreement
from mpo.evaluate.judged_win_rate.pairs import pairs_of
from tests.unit.evaluate.judged_samples import Judged, by_key, evidence, judged, measure, samples
from tests.unit.evaluate.test_judged_win_rate import TEXTS, words


def answers(path: Path, *records: Any) -> str:
    path.write_text(json.dumps(list(records)))
    return str(path)


def by_length(baseline: str) -> Judged:
    judges = {"long": {"_target_": "mpo.score.function.FunctionScorer", "function": f"{words.__module__}.words"}}
    made = measure(judges=judges, baseline=baseline)
    made.check()
    return judged(made, evidence(samples(TEXTS)))


def test_the_baseline_may_be_a_file(tmp_path: Path) -> None:
    rows = [{"instruction": f"Question {n}?", "output": "x y", "generator": "gpt"} for n in range(7)]
    found = by_length(answers(tmp_path / "a.json", *rows))
    rate = by_key(found)["win_rate/long@0.7"]
    assert (rate.value, rate.baseline) == (pytest.approx((0 + 1 + 0.5 + 0 + 0 + 1) / 6), "gpt")
    assert {one["generator_1"] for one in found.files["annotations@0.7.json"]} == {"gpt"}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"instruction": "Question 0?", "output": "x"}], "a.json: no answer to 5 of 6 held-out prompts, as 'Que"),
        ([{"instruction": "q"}], "a.json:row 1: no output that is text"),
        ([{"instruction": "q", "output": "a"}, {"instruction": "q", "output": "b"}], "row 2: an instruction that is"),
        (
            [{"instruction": n, "output": "a", "generator": n} for n in "xy"],
            "a.json: answers of 2 models: x, y; give a file for one model",
        ),
        ([], "a.json: the list is empty"),
    ],
)  # fmt: skip
def test_a_file_of_answers_that_does_not_fit_is_one_line(tmp_path: Path, records: list[Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        by_length(answers(tmp_path / "a.json", *records))
    assert said in str(caught.value)


def test_kappas_error_is_the_jackknife() -> None:
    def asked(wins: list[float]) -> Asked:
        return Asked([[Decision(one, None, None, {})] for one in wins], [], {})

    def kappa(one: list[float], other: list[float]) -> float:
        count = len(one)
        same = sum(a == b for a, b in zip(one, other, strict=True)) / count
        chance = sum(one.count(value) * other.count(value) for value in (0.0, 0.5, 1.0)) / count**2
        return (same - chance) / (1 - chance)

    one, other = [1.0, 1.0, 0.0, 0.0, 0.5, 1.0], [1.0, 0.0, 0.0, 0.5, 0.5, 1.0]
    same, found = agreement(pairs_of(samples(TEXTS), None), asked(one), asked(other))
    assert (same.value, found.value) == (pytest.approx(4 / 6), pytest.approx(kappa(one, other)))
    without = [kappa(one[:n] + one[n + 1 :], other[:n] + other[n + 1 :]) for n in range(6)]
    mean = sum(without) / 6
    assert found.standard_error == pytest.approx(math.sqrt(5 / 6 * sum((each - mean) ** 2 for each in without)))
    same, found = agreement(pairs_of(samples(TEXTS[:2]), None), asked([1.0, 1.0]), asked([1.0, 1.0]))
    assert same.value == 1.0 and math.isnan(found.value)
