from __future__ import annotations

import statistics

import pytest

from mpo.errors import DataError
from mpo.testbed.demonstrations import generate_demonstrations
from mpo.testbed.reward import proxy_reward, text_normal, true_reward

PROMPT = (
    "write 2 sentences about garden ; use : rose , slowly ; start with hello ; end with friend ; no names ; "
    "each with time"
)
PERFECT = "hello the rose sees the tree slowly now . the bee likes the fence today friend ."


def test_perfect_response_scores_ten() -> None:
    assert true_reward(PROMPT, PERFECT) == pytest.approx(10.0)


@pytest.mark.parametrize(
    "worse, expected",
    [
        # Seven constraints: a half-missed one costs 10/14, a missed one 10/7.
        (PERFECT.replace("rose", "bee"), 10 - 5 / 7),
        (PERFECT.replace("hello", "well"), 10 - 10 / 7),
        (PERFECT.replace("friend", "indeed"), 10 - 10 / 7),
        (PERFECT.replace("the bee likes", "anna likes"), 10 - 5 / 7),
        (PERFECT.replace("today ", ""), 10 - 5 / 7),
        (PERFECT.replace("the bee likes the fence", "the oven likes the soup"), 10 - 5 / 7),
        (PERFECT.replace(" friend .", " . the bee holds the tree now friend ."), 10 - 5 / 7),
        # Grammar: one sentence of two is broken.
        (PERFECT.replace("likes the fence", "the fence likes"), 10 * (0.25 + 0.75 / 2)),
        (PERFECT.removesuffix(" ."), 10.0),
        # One verb twice: R falls from 1 to 0.75.
        (PERFECT.replace("likes", "sees"), 10 * (0.4 + 0.6 * 0.75)),
    ],
)
def test_each_fault_costs_what_the_formula_says(worse: str, expected: float) -> None:
    assert true_reward(PROMPT, worse) == pytest.approx(expected)


@pytest.mark.parametrize("nothing", ["", "   "])
def test_no_sentence_scores_zero(nothing: str) -> None:
    assert true_reward(PROMPT, nothing) == 0.0


@pytest.mark.parametrize("junk", [". . . .", "friend", "rose slowly hello", "lorem ipsum .", PERFECT + " " + PERFECT])
def test_junk_stays_within_bounds_and_below_perfect(junk: str) -> None:
    assert 0.0 <= true_reward(PROMPT, junk) < 7.0


def test_foreign_prompt_is_a_data_error() -> None:
    with pytest.raises(DataError):
        true_reward("tell me a joke", PERFECT)


def test_bounds_on_demonstrations() -> None:
    scores = [true_reward(prompt, response) for prompt, response in generate_demonstrations(1500, 0)]
    assert min(scores) >= 0.0 and max(scores) == pytest.approx(10.0)
    assert max(scores) <= 10.0 + 1e-9


def test_proxy_is_the_truth_by_default_and_length_bias_adds_up() -> None:
    assert proxy_reward(PROMPT, PERFECT) == true_reward(PROMPT, PERFECT)
    assert proxy_reward(PROMPT, PERFECT, length_bias=0.3) == pytest.approx(10.0 + 0.3 * len(PERFECT.split()))


def test_proxy_noise_has_the_asked_spread_and_depends_on_seed_and_texts_alone() -> None:
    pairs = list(generate_demonstrations(1500, 0))
    errors = [proxy_reward(p, r, noise_sigma=2.0, seed=7) - true_reward(p, r) for p, r in pairs]
    assert statistics.fmean(errors) == pytest.approx(0.0, abs=0.2)
    assert statistics.stdev(errors) == pytest.approx(2.0, rel=0.08)
    prompt, response = pairs[0]
    assert proxy_reward(prompt, response, noise_sigma=2.0, seed=7) == proxy_reward(prompt, response, 2.0, 0.0, 7)
    assert proxy_reward(prompt, response, noise_sigma=2.0, seed=8) != proxy_reward(prompt, response, 2.0, 0.0, 7)


def test_noise_keeps_texts_apart() -> None:
    assert text_normal(0, "a", "b c") != text_normal(0, "a b", "c")


def test_heavy_tails_keep_the_order_and_the_ends() -> None:
    texts = [PERFECT, " ".join(PERFECT.split()[:6]), " ".join(PERFECT.split()[:2])]
    straight = [proxy_reward(PROMPT, text) for text in texts]
    bent = [proxy_reward(PROMPT, text, tail=5.0) for text in texts]
    assert bent[0] == pytest.approx(10.0)
    assert sorted(range(3), key=bent.__getitem__) == sorted(range(3), key=straight.__getitem__)
    assert all(0.0 <= low < high for low, high in zip(bent[1:], straight[1:], strict=True))
