"""How a judge's answer becomes a number: with log-probs, without them, and what is no verdict at all."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mpo.score.verdicts import LETTERS, Verdict, points

ONE_TO_NINE = points(1, 9)


def token(text: str, probability: float = 1.0, **others: float) -> dict[str, Any]:
    """As the chat API gives one; ``others``: probabilities of alternatives, ``_`` for a space."""
    tops = {text: probability} | {name.replace("_", " ").strip("n"): p for name, p in others.items()}
    named = [{"token": name, "logprob": math.log(p)} for name, p in tops.items()]
    return {"token": text, "logprob": math.log(probability), "top_logprobs": named}


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("7", 7.0), (" 7\n", 7.0), ("**7**", 7.0), ("7.", 7.0), ("Grade: 7", 7.0), ("7/9", 7.0), ("9/9", 9.0),
        ("7 out of 9.", 7.0), ("It has 2 errors of 5.\n\nGrade: 4", 4.0), ("<think>8? 9?</think>\n5", 5.0),
        ("10", None), ("0", None), ("-3", None), ("7.5", None), ("7,5", None), ("6-7", None), ("6 or 7", None),
        ("7/10", None), ("seven", None), ("", None), ("7 points", None), ("Q7", None),
        ("On a scale of 1 to 9: 7", None),
        ("7\nbecause it is short", None),
    ],
)  # fmt: skip
def test_the_number_that_ends_the_last_line_is_the_grade(said: str, value: float | None) -> None:
    assert ONE_TO_NINE.read(said) == (None if value is None else Verdict(value))


def test_a_scale_may_have_numbers_of_two_digits() -> None:
    scale = points(1, 10)
    assert [scale.read(said) for said in ("10", "10/10", "1", "11", "1/10")] == [
        Verdict(10.0), Verdict(10.0), Verdict(1.0), None, Verdict(1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("A", 1.0), ("B.", 0.0), ("[[C]]", 0.5), ("The better one is B", 0.0), ("Both A and B lack it.\nA", 1.0),
        ("a", None), ("A or B", None), ("A good answer", None), ("The C code is fine", None), ("D", None), ("", None),
    ],
)  # fmt: skip
def test_the_letter_that_ends_the_last_line_is_the_winner(said: str, value: float | None) -> None:
    assert LETTERS.read(said) == (None if value is None else Verdict(value))


def test_with_log_probs_the_grade_is_an_expectation_renormalised_over_the_scale() -> None:
    found = ONE_TO_NINE.read("7", [token("7", 0.5, n8=0.2, _8=0.1, nThe=0.15, n0=0.05), token("<|end|>")])
    assert found is not None and found.mass == pytest.approx(0.8)
    assert found.value == pytest.approx((0.5 * 7 + 0.3 * 8) / 0.8)


def test_a_token_that_is_not_among_its_own_alternatives_counts_too() -> None:
    alone = {"token": "7", "logprob": math.log(0.6), "top_logprobs": None}
    assert ONE_TO_NINE.read("7", [alone]) == Verdict(7.0, pytest.approx(0.6))


def test_the_place_of_the_number_is_found_behind_thinking_and_before_the_scale() -> None:
    tokens = [token("<think>"), token("9", 0.9, n1=0.1), token("</think>"), token("\n\n"), token("Grade"), token(":")]
    tokens += [token(" 9", 0.75, _5=0.25), token("/"), token("9"), token("<|end|>")]
    found = ONE_TO_NINE.read("Grade: 9/9", tokens)
    assert found is not None and found.value == pytest.approx(0.75 * 9 + 0.25 * 5) and found.mass == pytest.approx(1)


def test_a_verdict_that_is_no_token_of_its_own_counts_as_written() -> None:
    assert ONE_TO_NINE.read("**7**", [token("**7"), token("**")]) == Verdict(7.0)
    assert ONE_TO_NINE.read("7", [token("seven")]) == Verdict(7.0)


def test_a_tie_is_half_a_win() -> None:
    found = LETTERS.read("A", [token("A", 0.5, nB=0.2, nC=0.2, _A=0.05)])
    assert found is not None and found.mass == pytest.approx(0.95)
    assert found.value == pytest.approx((0.55 + 0.1) / 0.95)
