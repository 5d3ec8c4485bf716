"""Where losses must coincide, and gradients and values that the papers give in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mpo.losses import (
    DPO,
    GRPO,
    MPO,
    WMPO,
    Compose,
    Contrast,
    Deviation,
    InfoNCA,
    KBinMPO,
    ListMLE,
    Loss,
    LossInputs,
    MPORefFree,
    PairMCM,
    PairMCS,
    PairMNM,
    PairMNS,
    PairSingle,
    PlackettLuce,
    Reward,
    SimPO,
)
from mpo.partition import KBin, Mean, Ranks

MakeBatch = Callable[..., LossInputs]
few = settings(max_examples=20, deadline=None)


@st.composite
def sets(draw: st.DrawFn, min_size: int = 2, max_size: int = 7) -> LossInputs:
    """One set with distinct scores, bins of ``Mean``."""
    size = draw(st.integers(min_size, max_size))

    def row(low: float, high: float) -> Tensor:
        return torch.tensor([draw(st.lists(st.floats(low, high), min_size=size, max_size=size))], dtype=torch.float64)

    scores = draw(st.lists(st.integers(0, 1000), min_size=size, max_size=size, unique=True))
    policy_BK = row(-1000, -0.5)
    return LossInputs(
        policy_logps_BK=policy_BK.requires_grad_(),
        reference_logps_BK=policy_BK.detach() + row(-300, 300),
        lengths_BK=torch.tensor([draw(st.lists(st.integers(1, 500), min_size=size, max_size=size))]),
        scores_BK=torch.tensor([scores], dtype=torch.float64) / 100,
        bins_BK=torch.tensor([Mean()([score / 100 for score in scores])]),
        mask_BK=torch.ones(1, size, dtype=torch.bool),
    )


def assert_same(first: Loss, second: Loss, inputs: LossInputs, other: LossInputs | None = None) -> None:
    """Equal loss and gradient."""
    results = []
    for loss, given_inputs in ((first, inputs), (second, other or inputs)):
        loss_B = loss(given_inputs).loss_B
        results.append((loss_B.detach(), *torch.autograd.grad(loss_B.sum(), given_inputs.policy_logps_BK)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-12)


def with_bins(inputs: LossInputs, partition: Callable[[list[float]], list[int]]) -> LossInputs:
    return replace(inputs, bins_BK=torch.tensor([partition(inputs.scores_BK[0].tolist())]))


@few
@given(sets(max_size=2), st.floats(0.001, 1))
def test_one_against_one(inputs: LossInputs, beta: float) -> None:
    assert_same(MPO(beta), DPO(beta), inputs)
    assert_same(PlackettLuce(beta), DPO(beta), inputs)
    assert_same(MPORefFree(10 * beta, 0.7), SimPO(10 * beta, 0.7), inputs)
    for other in (PairMNM(), PairSingle(), PairMCS(), PairMCM(), ListMLE()):
        assert_same(PairMNS(), other, inputs)


@few
@given(sets(), st.floats(0.001, 1))
def test_wmpo_without_weight_is_mpo(inputs: LossInputs, beta: float) -> None:
    for deviation in Deviation:
        assert_same(WMPO(beta, 0.0, deviation), MPO(beta), inputs)


@few
@given(sets(), st.floats(0.001, 1))
def test_bins_of_one_response_are_plackett_luce(inputs: LossInputs, beta: float) -> None:
    size = inputs.scores_BK.shape[1]
    single, ranked = with_bins(inputs, KBin(bins=size)), with_bins(inputs, Ranks())
    assert_same(KBinMPO(beta), PlackettLuce(beta), single, ranked)


@few
@given(sets())
def test_cold_infonca_is_the_log_softmax_of_the_best(inputs: LossInputs) -> None:
    best = inputs.scores_BK.argmax()
    assert inputs.reference_logps_BK is not None
    reward_K = 0.1 * (inputs.policy_logps_BK - inputs.reference_logps_BK).detach()[0]
    expected = -torch.log_softmax(reward_K, 0)[best]
    torch.testing.assert_close(InfoNCA(0.1, tau=1e-5)(inputs).loss_B[0].detach(), expected, rtol=1e-6, atol=1e-12)


@few
@given(sets(), st.floats(-200, 200))
def test_mpo_ignores_a_constant_added_to_all_rewards(inputs: LossInputs, shift: float) -> None:
    assert inputs.reference_logps_BK is not None
    moved = replace(inputs, reference_logps_BK=inputs.reference_logps_BK + shift)
    assert_same(MPO(0.1), MPO(0.1), inputs, moved)


@few
@given(sets(), st.floats(0.001, 1), st.floats(0, 1))
def test_compositions_are_the_named_losses(inputs: LossInputs, beta: float, alpha: float) -> None:
    assert_same(Compose(beta=beta, alpha=alpha), WMPO(beta, alpha), inputs)
    assert_same(Compose(contrast=Contrast.pairwise_mean, beta=beta), DPO(beta), inputs)
    free = Compose(reward=Reward.mean_logp, beta=beta, margin=alpha)
    assert_same(free, MPORefFree(beta, alpha), inputs)
    assert_same(Compose(contrast=Contrast.soft_target, beta=beta, tau=0.5), InfoNCA(beta, tau=0.5), inputs)
    assert_same(Compose(reward=Reward.likelihood, contrast=Contrast.pairwise_sum), PairMNS(), inputs)


@few
@given(sets(), st.floats(0.001, 1), st.floats(0, 2))
def test_gradient_of_mpo_is_the_closed_form_of_lemmas_5_to_7(inputs: LossInputs, beta: float, alpha: float) -> None:
    """∂L/∂(βr_i) = p_i^weighted − p_i^pos, softmaxes of z over all and over the accepted responses."""
    assert inputs.reference_logps_BK is not None
    scores_K, accepted_K = inputs.scores_BK[0], inputs.bins_BK[0] == 0
    deviation_K = (scores_K - scores_K.mean()).abs()
    z_K = beta * (inputs.policy_logps_BK - inputs.reference_logps_BK).detach()[0] + alpha * deviation_K
    positive_K = torch.softmax(z_K.masked_fill(~accepted_K, -torch.inf), 0)
    expected_K = beta * (torch.softmax(z_K, 0) - positive_K)
    loss_B = WMPO(beta, alpha)(inputs).loss_B
    (grad_BK,) = torch.autograd.grad(loss_B.sum(), inputs.policy_logps_BK)
    torch.testing.assert_close(grad_BK[0], expected_K, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("loss", [DPO(), PlackettLuce(0.1), MPO()], ids=["dpo", "plackett_luce", "mpo"])
def test_policy_equal_to_reference_gives_the_known_start(loss: Loss, make_batch: MakeBatch) -> None:
    scores = [[5.0, 9.0], [9.0, 5.0, 3.0, 8.0]]
    inputs = make_batch(loss, (2, 4), scores=scores, spread=0.0)
    four = {DPO: math.log(2), PlackettLuce: math.log(24), MPO: math.log(4 / 2)}[type(loss)]
    torch.testing.assert_close(loss(inputs).loss_B.detach(), torch.tensor([math.log(2), four], dtype=torch.float64))


@pytest.mark.parametrize("seed", range(4))
def test_grpo_against_a_scalar_loop(make_batch: MakeBatch, seed: int) -> None:
    loss = GRPO(epsilon=0.15, kl_beta=0.07)
    sizes = (2, 5, 3)
    inputs = make_batch(loss, sizes, seed=seed, tokens=6, spread=6.0)
    expected = [_scalar_grpo(inputs, row, size, 0.15, 0.07) for row, size in enumerate(sizes)]
    torch.testing.assert_close(
        loss(inputs).loss_B.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0
    )


def _scalar_grpo(inputs: LossInputs, row: int, size: int, epsilon: float, kl_beta: float) -> float:
    scores = inputs.scores_BK[row, :size].tolist()
    mean = math.fsum(scores) / size
    std = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (size - 1))
    total = 0.0
    assert inputs.policy_token_logps_BKT is not None
    assert inputs.reference_token_logps_BKT is not None
    assert inputs.token_mask_BKT is not None
    for index in range(size):
        advantage = (scores[index] - mean) / std
        terms = []
        for token in range(inputs.token_mask_BKT.shape[2]):
            if not inputs.token_mask_BKT[row, index, token]:
                continue
            delta = (inputs.reference_token_logps_BKT - inputs.policy_token_logps_BKT)[row, index, token].item()
            ratio = math.exp(-delta)
            clipped = min(max(ratio, 1 - epsilon), 1 + epsilon)
            terms.append(min(ratio * advantage, clipped * advantage) - kl_beta * (math.exp(delta) - delta - 1))
        total += math.fsum(terms) / len(terms)
    return -total / size
