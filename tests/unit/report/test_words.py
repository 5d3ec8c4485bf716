"""What people call estimates."""

from __future__ import annotations

from mpo.evaluate.records import Estimate
from mpo.report.words import titles


def test_known_metrics_have_words_and_others_their_name() -> None:
    found = titles([Estimate("lc_win_rate", 0.5, temperature=0.7), Estimate("my_metric", 1.0)])
    assert list(found) == ["length-controlled win rate at T=0.7", "my metric"]


def test_two_judges_are_told_apart() -> None:
    one, other = (Estimate("win_rate", value, judge=judge) for judge, value in (("a", 0.1), ("b", 0.2)))
    assert titles([one, other]) == {"win rate": one, "win rate, judged by b": other}
    of_two = [Estimate("win_rate", 0.5, judge=judge, baseline=base) for judge in "ab" for base in ("x", "y")]
    assert list(titles(of_two)) == [
        "win rate", "win rate, over y", "win rate, judged by b", "win rate, judged by b, over y",
    ]  # fmt: skip
    assert len(titles([one, other, other])) == 3  # nothing is lost, however alike


def test_the_last_round_comes_first_and_earlier_ones_in_part() -> None:
    made = [Estimate(metric, float(n), round=n) for n in (1, 2) for metric in ("win_rate", "length")]
    assert {name: each.value for name, each in titles(made).items()} == {
        "win rate": 2.0, "response length": 2.0, "win rate, round 1": 1.0, "win rate, round 2": 2.0,
    }  # fmt: skip


def test_keys_say_all_that_tells_estimates_apart() -> None:
    one = Estimate("win_rate", 0.5, temperature=0.7, round=2, judge="a")
    assert one.key == "heldout/win_rate/a@0.7/round2" and Estimate("loss", 1.0).key == "heldout/loss"
