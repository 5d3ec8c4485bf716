"""The values behind estimates, one a prompt."""

from __future__ import annotations

import json
import math
import statistics

import pytest

from mpo.evaluate import Estimate, Evidence, Findings, PromptValues, prompt_keys
from mpo.evaluate.base import Samples
from mpo.plain import finite, to_plain
from mpo.report.records import read_findings
from mpo.testbed.win_rate import WinRate
from mpo.types import Message, Response, ResponseSet


def answered(name: str, prompt: str, *rewards: float) -> ResponseSet:
    turns = (Message("user", prompt),)
    return ResponseSet(name, turns, tuple(Response(f"word {reward}", score=reward) for reward in rewards))


ROSE, TREE = "write 2 sentences about garden ; use : rose", "write 2 sentences about garden ; use : tree"
START = [
    answered("a", ROSE, 1, 3),
    answered("b", TREE, 2, 2),
]
POLICY = [
    answered("a", ROSE, 5, 7),
    answered("b", TREE, 4, 1),
]


def test_a_prompt_has_one_key_in_every_run_whatever_its_sets_are_called() -> None:
    keys = prompt_keys([answered("a", "write"), answered("b", "Write  "), answered("c", "read")])
    assert keys == prompt_keys([answered("x", "write"), answered("y", "write"), answered("z", "read")])
    assert keys[1] == f"{keys[0]}#2" and len(set(keys)) == 3


def test_win_rates_come_with_the_values_that_they_are_means_of() -> None:
    found = WinRate().measure(Evidence((Samples(0.7, START, POLICY),), None, None, 0, lambda *_: None))
    values = {each.metric: each for each in found.by_prompt}
    assert values["true_reward"].values == (6, 2.5) and values["true_win_rate"].values == (1, 0.5)
    assert values["true_reward"].prompts == prompt_keys(START)
    means = {each.about: each.value for each in found.estimates}
    for each in found.by_prompt:
        assert statistics.fmean(each.values) == pytest.approx(means[each.about]), each.metric
    assert {each.metric for each in found.estimates} - values.keys() == {"lc_win_rate"}  # a fit, not a mean


def test_they_survive_their_file_and_older_files_have_none() -> None:
    estimate = Estimate("win_rate", 0.5, temperature=1.0, judge="testbed")
    found = Findings([estimate], by_prompt=[PromptValues.of(estimate, ["a", "b"], [1.0, math.nan])])
    record = json.loads(json.dumps(finite(to_plain(found)), allow_nan=False))
    again = read_findings(record).by_prompt[0]
    assert again.prompts == ("a", "b") and again.values[0] == 1 and math.isnan(again.values[1])
    assert again.about == estimate.about
    del record["by_prompt"]
    assert read_findings(record).by_prompt == []


def test_values_of_no_estimate_and_of_too_few_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="values by prompt of length belong to no estimate"):
        Findings([Estimate("win_rate", 0.5)], by_prompt=[PromptValues("length", ("a",), (1.0,))])
    with pytest.raises(ValueError, match="win_rate has 2 values of 1 prompts"):
        PromptValues("win_rate", ("a", "a"), (1.0, 2.0))
