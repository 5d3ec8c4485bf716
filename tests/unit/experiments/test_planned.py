from __future__ import annotations

import pytest

from mpo.experiments.cells import Cell
from mpo.experiments.planned import PlannedRun, plan_lines, plan_page, seconds_of
from mpo.experiments.spec import Scale

PRINTED = """\
train                build  8 processes

plan
  model      meta-llama/Meta-Llama-3-8B-Instruct, 8.03B parameters
  memory     about 27.2 GiB a process with ZeRO 3, which fits the card's 74.5 GiB (weights 1.9 GiB, gradients 3.7 GiB)
  time       1,249 TFLOP a step and process, about 10 s on NVIDIA A100 80GB SXM at 40 % of its peak, 1 h 20 min in all
  card       8 × NVIDIA A100 80GB SXM, 80 GB, 312 TFLOP/s in bf16, 2.04 TB/s by its data sheet: planned from that
  hours      training 1 h 20 min + reference 25 min 03 s + scoring 36 min 23 s = about 2 h 46 min; loading comes on top

something else
"""
"""Lines of a plan that ``python -m mpo.run model=llama3_8b_instruct loss=mpo dry_run=true`` printed."""


def run(facts: dict[str, str], again: bool = False) -> PlannedRun:
    return PlannedRun(Cell("", "MPO", "", 0, ("loss=mpo",)), facts, seconds_of(facts.get("hours", "")), again)


@pytest.mark.parametrize(
    ("hours", "seconds"),
    [
        ("training 1 h 20 min + sampling 25 min 10 s = about 2 h 46 min; loading models is not counted", 9960),
        ("training 4 min 25 s = about 12 min 17 s a round, 36 min 53 s in all; loading is not counted", 2213),
        ("training 9.5 s = about 9.5 s; training does not fit the card, see memory", 9.5),
        ("training 42 s = about 42 s, without scoring, of which that is not known; loading is not counted", 42),
        ("training 42 s = about 42 s a round, 84 s in all, without scoring, of which that is not known; no", 84),
        ("not known", None),
    ],
)
def test_seconds_are_those_of_the_whole_run(hours: str, seconds: float | None) -> None:
    assert seconds_of(hours) == seconds


def test_a_plan_is_read_from_its_lines() -> None:
    one = run(plan_lines(PRINTED.splitlines()))
    assert list(one.facts) == ["model", "memory", "time", "card", "hours"]
    assert (one.seconds, one.cards, one.length) == (9960, 8, "about 2 h 46 min")
    assert one.memory == "about 27.2 GiB a process with ZeRO 3, which fits the card's 74.5 GiB"
    assert plan_lines(["no plan"]) == {} and run({}).length == "hours not known" and run({}).cards == 0


def test_the_page_counts_a_shared_run_once_and_says_what_is_left_out() -> None:
    whole = plan_lines(PRINTED.splitlines())
    partly = {
        **whole,
        "hours": "training 1 h 00 min = about 1 h 00 min, without scoring, of which that is not known; no",
    }
    assert run(partly).length == "about 1 h 00 min without scoring"
    page = plan_page(
        {"a": [run(whole), run(partly)], "b": [run(whole, True)]}, "paper", Scale(title="T"), ["c, X: bad"]
    )
    assert "| a | MPO | 2.8 | 22 |" in page and "| a | MPO | at least 1.0 | 8 |" in page
    assert "| b | MPO | 2.8 | shared |" in page and "**30 card-hours**" in page and "- not planned: c, X: bad" in page
