"""Numbers that every loss reports, on sets small enough to do by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mpo.losses import DPO, MPO, SFT, WMPO, LossInputs

BATCH = LossInputs(
    policy_logps_BK=torch.tensor([[-10.0, -20.0, -30.0], [-5.0, -9.0, math.nan]], requires_grad=True),
    reference_logps_BK=torch.tensor([[-12.0, -19.0, -32.0], [-5.0, -9.0, math.nan]]),
    lengths_BK=torch.tensor([[10, 10, 10], [5, 3, 0]]),
    scores_BK=torch.tensor([[4.0, 9.0, 2.0], [1.0, 2.0, math.nan]]),
    bins_BK=torch.tensor([[1, 0, 1], [1, 0, -1]]),
    mask_BK=torch.tensor([[True, True, True], [True, True, False]]),
)


def test_margin_accuracy_and_rewards() -> None:
    metrics = MPO(beta=0.5)(BATCH).metrics
    assert metrics["reward_accepted"].tolist() == [-0.5, 0.0]
    assert metrics["reward_rejected"].tolist() == [1.0, 0.0]
    assert metrics["margin"].tolist() == [-1.5, 0.0]
    # Set 1: r = 2, -1, 2 for scores 4, 9, 2: both pairs with the best are wrong, 4 > 2 ties. Set 2: one tie.
    assert metrics["accuracy"].tolist() == pytest.approx([0.5 / 3, 0.5])
    assert not any(values.requires_grad for values in metrics.values())


def test_accuracy_counts_the_dropped_and_margin_does_not() -> None:
    metrics = DPO(beta=1.0)(replace(BATCH, bins_BK=torch.tensor([[-1, 0, 1], [1, 0, -1]]))).metrics
    assert metrics["margin"][0].item() == -3.0
    assert metrics["accuracy"][0].item() == pytest.approx(0.5 / 3)


def test_what_a_set_does_not_have_is_nan() -> None:
    one = replace(BATCH, bins_BK=torch.tensor([[0, -1, -1], [0, -1, -1]]), mask_BK=BATCH.mask_BK & (BATCH.bins_BK > 0))
    metrics = SFT()(one).metrics
    assert metrics["reward_accepted"].tolist() == [-1.0, -1.0]
    assert math.isnan(metrics["reward_rejected"][1])
    assert math.isnan(metrics["margin"][1])
    assert math.isnan(metrics["accuracy"][1])


def test_weights_of_wmpo() -> None:
    metrics = WMPO(beta=0.1, alpha=10.0)(BATCH).metrics
    deviations = [1.0, 4.0, 3.0]
    assert metrics["weight_max"][0].item() == pytest.approx(math.exp(40), rel=1e-6)
    assert metrics["weight_mean"][0].item() == pytest.approx(sum(math.exp(10 * d) for d in deviations) / 3, rel=1e-6)


def test_weights_past_float32_are_still_numbers() -> None:
    far = replace(BATCH, scores_BK=torch.tensor([[0.0, 20.0, 0.0], [1.0, 2.0, 0.0]]))
    assert math.isfinite(WMPO(alpha=10.0)(far).metrics["weight_max"][0])


def test_ranks_run_from_the_best_score_down() -> None:
    ranks = MPO(beta=0.5).rank_metrics(BATCH)
    assert ranks["reward_rank_BK"][0].tolist() == [-0.5, 1.0, 1.0]
    assert ranks["likelihood_rank_BK"][0].tolist() == pytest.approx([math.exp(-2), math.exp(-1), math.exp(-3)])
    assert ranks["likelihood_rank_BK"][1, :2].tolist() == pytest.approx([math.exp(-3), math.exp(-1)])
    assert math.isnan(ranks["reward_rank_BK"][1, 2])
    assert not ranks["reward_rank_BK"].requires_grad


def test_sft_takes_the_best_of_the_best_bin_and_uses_every_set() -> None:
    without_accepted = replace(BATCH, bins_BK=torch.tensor([[1, 1, 1], [1, 0, -1]]))
    assert SFT()(without_accepted).loss_B.tolist() == [2.0, 3.0]
    assert SFT()(replace(BATCH, bins_BK=torch.tensor([[0, 1, 0], [0, 1, -1]]))).loss_B.tolist() == [1.0, 1.0]
