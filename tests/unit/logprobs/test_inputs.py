"""From assignments to what a loss gets."""

from __future__ import annotations

import math

import pytest
import torch

from mpo.data.assignments import Assignments
from mpo.logprobs.inputs import assigned, sampled_win_rates
from mpo.losses import SPPO, LossInputs
from mpo.partition import BestVsWorst


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


SCORES = [[3.0, 1.0, 2.5, -4.0], [0.5, 0.0]]
ASSIGNMENTS = Assignments.build([(scores, BestVsWorst()(scores), None) for scores in SCORES])


def test_win_rates_are_over_all_sampled_responses() -> None:
    rates_BK = sampled_win_rates(ASSIGNMENTS, [1, 0], sets=3, responses=4)
    for b, scores in enumerate((SCORES[1], SCORES[0])):
        expected = [sum(sigmoid(one - other) for other in scores) / len(scores) for one in scores]
        assert rates_BK[b, : len(scores)].tolist() == pytest.approx(expected, rel=1e-12)
    assert rates_BK.dtype == torch.float64 and bool(rates_BK.isfinite().all())


def test_sppo_reads_the_scores_of_dropped_responses() -> None:
    marks = assigned(ASSIGNMENTS, [0], 1, 4)
    r, beta = [0.3, 0.0, 0.0, -0.2], 0.1
    inputs = LossInputs(
        policy_logps_BK=torch.tensor([r], dtype=torch.float64),
        reference_logps_BK=torch.zeros(1, 4, dtype=torch.float64),
        lengths_BK=torch.full((1, 4), 7),
        scores_BK=marks.scores_BK,
        bins_BK=marks.bins_BK,
        mask_BK=marks.mask_BK,
        win_rates_BK=sampled_win_rates(ASSIGNMENTS, [0], 1, 4),
    )
    assert marks.mask_BK.tolist() == [[True, False, False, True]]
    rates = [sum(sigmoid(one - other) for other in SCORES[0]) / 4 for one in SCORES[0]]
    expected = sum((r[k] - (rates[k] - 0.5) / beta) ** 2 for k in (0, 3))
    assert SPPO(beta=beta)(inputs).loss_B.tolist() == pytest.approx([expected], rel=1e-12)
