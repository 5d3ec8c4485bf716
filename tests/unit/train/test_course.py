"""What the rows of a training's metrics amount to: the best evaluation, an early end, divergence."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from mpo.errors import DataError
from mpo.train.best import Evaluations
from mpo.train.divergence import STEPS, Divergence
from mpo.train.random_state import unchanged_random_state


def evaluated(metric: str, *values: float | None) -> list[dict[str, Any]]:
    """An evaluation every other step."""
    rows: list[dict[str, Any]] = []
    for number, value in enumerate(values, 1):
        rows += [{"step": 2 * number - 1}, {"step": 2 * number, metric: value}]
    return rows


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("heldout/accuracy", (0.5, 0.7, 0.7, 0.6), (4, 0.7)),
        ("heldout/loss", (0.5, 0.3, 0.4), (4, 0.3)),
        ("heldout/margin", (-0.5, -0.7), (2, -0.5)),
        ("heldout/loss", (None, 0.3, math.nan, math.inf), (4, 0.3)),
    ],
)
def test_the_best_is_the_first_that_no_other_exceeds(metric: str, values: Any, best: tuple[int, float]) -> None:
    evaluations = Evaluations(metric, None)
    improved = [row["step"] for row in evaluated(metric, *values) if evaluations.add(row)]
    assert (evaluations.step, evaluations.value) == best and improved[-1] == best[0]
    assert not evaluations.over


def test_it_is_over_after_so_many_evaluations_without_improvement() -> None:
    evaluations = Evaluations("heldout/accuracy", 2)
    over = []
    for row in evaluated("heldout/accuracy", 0.5, 0.4, 0.6, 0.6, 0.5):
        evaluations.add(row)
        over.append(evaluations.over)
    assert over.index(True) == 9  # the tenth step, with the second evaluation after the best


def test_it_is_over_where_the_best_so_far_is_behind() -> None:
    wanted = [-math.inf, 0.6, -math.inf, 0.7]
    for values, over in [((0.7, 0.5, 0.5, 0.5), None), ((0.5, 0.6, 0.6, 0.6), 8), ((0.4, 0.5), 4), ((None, None), 2)]:
        evaluations = Evaluations("heldout/accuracy", None, wanted)
        ended = None
        for row in evaluated("heldout/accuracy", *values):
            evaluations.add(row)
            ended = ended or (row["step"] if evaluations.over else None)
        assert ended == over, values
    lower = Evaluations("heldout/loss", None, [0.3])
    lower.add({"step": 2, "heldout/loss": 0.31})
    assert lower.over and lower.behind


def test_a_metric_that_evaluations_do_not_have_is_named() -> None:
    with pytest.raises(DataError, match="train.keep_best=heldout/accuracy"):
        Evaluations("heldout/accuracy", None).check({"step": 2, "heldout/loss": 0.1})
    Evaluations(None, None).check({"step": 2})


def diverged(*changes: dict[str, Any], **first: Any) -> Divergence:
    start = {"loss": 0.69, "kl": 0.0, "logps/chosen": -36.0, "response_length": 18.0} | first
    found = Divergence()
    for number, change in enumerate(({}, *changes), 1):
        found.add(start | change | {"step": number})
    return found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kl": 1.06}, "kl 1.06, above 1 for 5 steps"),
        ({"loss": 1.5}, "loss 1.5, above 1.38 for 5 steps"),
        ({"logps/chosen": -58.0}, "fall of the accepted responses' log-prob a token 1.22, above 1 for 5 steps"),
    ],
)
def test_a_number_beyond_its_bound_for_some_steps_is_divergence(change: dict[str, Any], reason: str) -> None:
    found = diverged(*[change] * STEPS, {})
    assert (found.step, found.reason) == (1 + STEPS, reason)
    assert diverged(*[change] * (STEPS - 1), {}, change).step == 0


def test_losses_that_begin_at_nothing_or_have_no_reference_are_judged_too() -> None:
    assert diverged(*[{"loss": 0.4}] * 9, loss=0.0).step == 0
    assert diverged(*[{"loss": 0.6}] * 9, loss=0.0).step == 1 + STEPS
    assert diverged(*[{"kl": None, "loss": None}] * 9).step == 0


def test_what_is_drawn_inside_is_not_missed_outside() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.random(), float(torch.rand(1))

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with unchanged_random_state():
        draw()
    assert draw() == expected
