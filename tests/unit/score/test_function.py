"""A Python function as scorer."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mpo.errors import ConfigError, DataError
from mpo.score import FunctionScorer, Item
from mpo.score.checked import checked_scores
from mpo.types import Message


def items(texts: list[str], prompt: Sequence[Message] = (Message("user", "q"),)) -> list[Item]:
    return [Item(tuple(prompt), Message("assistant", text)) for text in texts]


def count_words(prompt: str, response: str, weight: float = 1.0) -> float:
    return weight * len(response.split()) + len(prompt)


def as_text(prompt: str, response: str) -> str:
    return response


def test_it_scores_each_response_of_the_last_user_turn() -> None:
    scorer = FunctionScorer(f"{__name__}.count_words", {"weight": 10.0})
    turns = [Message("user", "long question"), Message("assistant", "well"), Message("user", "q")]
    assert checked_scores(scorer, items(["a b", "a b c"], turns)) == [21.0, 31.0]


@pytest.mark.parametrize("name", ["nowhere.at.all", "mpo.score.absent", "plain", "mpo.__version__"])
def test_a_name_that_is_no_function_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="score.function"):
        checked_scores(FunctionScorer(name), items(["a"]))


@pytest.mark.parametrize("options", [{"wieght": 1.0}, {"weight": 1.0, "more": 2}])
def test_options_that_the_function_does_not_take_are_found_before_it_is_called(options: dict[str, float]) -> None:
    FunctionScorer(f"{__name__}.count_words", {"weight": 2.0}).check()
    with pytest.raises(ConfigError, match="score.options: .*count_words does not take"):
        FunctionScorer(f"{__name__}.count_words", options).check()


def as_nan(prompt: str, response: str) -> float:
    return float("nan")


def as_numpy(prompt: str, response: str) -> float:
    return np.float32(1.5)  # type: ignore[return-value]


def as_tensor(prompt: str, response: str) -> float:
    return torch.tensor(1.5)  # type: ignore[return-value]


def as_vector(prompt: str, response: str) -> float:
    return np.ones(2)  # type: ignore[return-value]


def leaving(prompt: str, response: str) -> float:
    sys.exit(0)


def failing(prompt: str, response: str) -> float:
    raise KeyError("no such thing")


@pytest.mark.parametrize("name", ["as_numpy", "as_tensor"])
def test_other_libraries_numbers_are_numbers(name: str) -> None:
    assert checked_scores(FunctionScorer(f"{__name__}.{name}"), items(["a"])) == [1.5]


def test_what_a_function_raises_is_told_in_one_line() -> None:
    where = r"at test_function\.py:\d+; correct it"
    with pytest.raises(ConfigError, match=rf"score: .*failing raised KeyError: 'no such thing' {where}"):
        checked_scores(FunctionScorer(f"{__name__}.failing"), items(["a"]))
    with pytest.raises(ConfigError, match=rf"score: .*leaving called exit\(0\) {where}"):
        checked_scores(FunctionScorer(f"{__name__}.leaving"), items(["a"]))


def as_bool(prompt: str, response: str) -> bool:
    return True


@pytest.mark.parametrize("name", ["as_text", "as_nan", "as_bool", "as_vector"])
def test_a_function_that_returns_no_finite_number_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="not a number"):
        checked_scores(FunctionScorer(f"{__name__}.{name}"), items(["a"]))
