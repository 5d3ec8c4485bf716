"""Relatives of the losses against their papers' formulas, written once more in numpy: ragged sets, ties, edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from mpo.errors import DataError
from mpo.losses import (
    CPO,
    DPO,
    DPOP,
    IPO,
    IRPO,
    LDDPO,
    RPO,
    RRHF,
    SFT,
    WPO,
    ApproxNDCG,
    BCOPair,
    Compose,
    Contrast,
    DPOAllPairs,
    Link,
    LiPO,
    Loss,
    LossInputs,
    NeuralNDCG,
    Reward,
    RewardDistance,
)
from mpo.partition import PARTITIONS

MakeBatch = Callable[..., LossInputs]
Row = np.ndarray[Any, np.dtype[np.float64]]

SCORES = [
    [9.0, 2.0],
    [3.0, 8.5, 8.5],  # two best
    [7.0, 1.0, 1.0, 4.0],  # two worst
    [0.0, 10.0, 5.0, 5.0, 5.0, 2.5],  # the scale's ends, three alike
    [6.0, 6.0, 6.0, 6.1],
]


@dataclass(frozen=True)
class Set:
    """One set: log-probs of policy l and reference f, lengths n, scores s."""

    l: Row  # noqa: E741
    f: Row
    n: Row
    s: Row

    @property
    def r(self) -> Row:
        return self.l - self.f

    @property
    def w(self) -> int:
        return int(np.argmax(self.s))

    @property
    def b(self) -> int:
        return len(self.s) - 1 - int(np.argmin(self.s[::-1]))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(len(self.s)) for j in range(len(self.s)) if self.s[i] > self.s[j]]

    @property
    def gap(self) -> float:
        return float(self.r[self.w] - self.r[self.b])


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


def kl(a: float, b: float) -> float:
    """Of Bernoullis whose log-odds are a and b."""
    return float(sigmoid(a) * (softplus(-b) - softplus(-a)) + sigmoid(-a) * (softplus(b) - softplus(a)))


def rpo(x: Set, distance: str) -> float:
    z, a = 0.2 * x.gap, 0.7 * (x.s[x.w] - x.s[x.b])
    return {"squared": float((z - a) ** 2), "backward_kl": kl(a, z), "forward_kl": kl(z, a)}[distance]


def lipo(x: Set) -> float:
    z, gain = 0.2 * x.r, 2 ** (x.s / 10) - 1
    rank = [1 + sum(z[j] > z[i] or (z[j] == z[i] and j < i) for j in range(len(z))) for i in range(len(z))]
    return sum(
        abs(gain[i] - gain[j]) * abs(1 / np.log(1 + rank[i]) - 1 / np.log(1 + rank[j])) * softplus(z[j] - z[i])
        for i, j in x.pairs
    )


def ideal(x: Set) -> float:
    return float(np.sum(np.sort(2 ** (x.s / 10) - 1)[::-1] / np.log2(np.arange(2, len(x.s) + 2))))


def approx_ndcg(x: Set) -> float:
    z, gain = 4 * 0.2 * x.r, 2 ** (x.s / 10) - 1
    rank = [1 + sum(sigmoid(z[j] - z[i]) for j in range(len(z)) if j != i) for i in range(len(z))]
    return -float(np.sum(gain / np.log2(1 + np.array(rank)))) / ideal(x)


def neural_ndcg(x: Set) -> float:
    z, gain, size = 0.2 * x.r, 2 ** (x.s / 10) - 1, len(x.s)
    logits = np.array([((size + 1 - 2 * i) * z - np.abs(z[:, None] - z).sum(1)) / 1.5 for i in range(1, size + 1)])
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    for _ in range(50):
        share /= share.sum(0, keepdims=True)
        share /= share.sum(1, keepdims=True)
    return -float(np.sum(share @ gain / np.log2(np.arange(2, size + 2)))) / ideal(x)


def nll(x: Set) -> float:
    return float(-x.l[x.w] / x.n[x.w])


FORMULAS: dict[str, tuple[Loss, Callable[[Set], float]]] = {
    "rrhf": (RRHF(), lambda x: sum(max(0, x.l[j] / x.n[j] - x.l[i] / x.n[i]) for i, j in x.pairs) - x.l[x.w]),
    "cpo": (CPO(beta=0.2, lam=0.7), lambda x: softplus(-0.2 * (x.l[x.w] - x.l[x.b])) + 0.7 * nll(x)),
    "dpop": (DPOP(beta=0.2, lam=5), lambda x: softplus(-0.2 * (x.gap - 5 * max(0, -x.r[x.w])))),
    "irpo": (IRPO(beta=0.2, alpha=0.7), lambda x: softplus(-0.2 * x.gap) + 0.7 * nll(x)),
    "rpo": (RPO(0.2, 0.7), lambda x: rpo(x, "backward_kl")),
    "rpo_forward": (RPO(0.2, 0.7, RewardDistance.forward_kl), lambda x: rpo(x, "forward_kl")),
    "rpo_squared": (RPO(0.2, 0.7, RewardDistance.squared), lambda x: rpo(x, "squared")),
    "bco_pair": (BCOPair(0.2), lambda x: softplus(-0.2 * x.r[x.w]) + softplus(0.2 * x.r[x.b])),
    "lipo": (LiPO(0.2), lipo),
    "approx_ndcg": (ApproxNDCG(0.2, alpha=4), approx_ndcg),
    "neural_ndcg": (NeuralNDCG(0.2, tau=1.5), neural_ndcg),
    "list_hinge": (
        Compose(contrast=Contrast.pairwise_mean, link=Link.hinge, beta=0.2),
        lambda x: np.mean([max(0, 1 - 0.2 * (x.r[i] - x.r[j])) for i, j in x.pairs]),
    ),
    "raft": (SFT(), nll),
}
WITH_RANKS = ("list_hinge",)


def rows(inputs: LossInputs) -> list[Set]:
    sets = []
    assert inputs.reference_logps_BK is not None
    for k, mask_K in enumerate(inputs.mask_BK):
        parts = (inputs.policy_logps_BK.detach(), inputs.reference_logps_BK, inputs.lengths_BK, inputs.scores_BK)
        sets.append(Set(*(values[k][mask_K].double().numpy() for values in parts)))
    return sets


def numeric_gradient(formula: Callable[[Set], float], x: Set) -> Row:
    step, grad = 1e-5, np.zeros_like(x.l)
    for i in range(len(x.l)):
        up, down = x.l.copy(), x.l.copy()
        up[i] += step
        down[i] -= step
        grad[i] = (formula(replace(x, l=up)) - formula(replace(x, l=down))) / (2 * step)
    return grad


@pytest.mark.parametrize("spread", [0.0, 2.0, 60.0], ids=["at the reference", "near", "far"])
@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_gradient_are_the_formulas(name: str, spread: float, make_batch: MakeBatch) -> None:
    loss, formula = FORMULAS[name]
    inputs = make_batch(loss, tuple(map(len, SCORES)), seed=3, spread=spread, scores=SCORES)
    if name in WITH_RANKS:
        bins = [PARTITIONS["ranks"]()(own) for own in SCORES]
        width = inputs.bins_BK.shape[1]
        inputs = replace(inputs, bins_BK=torch.tensor([own + [-1] * (width - len(own)) for own in bins]))
    loss_B = loss(inputs).loss_B
    (grad_BK,) = torch.autograd.grad(loss_B.sum(), inputs.policy_logps_BK)
    for k, x in enumerate(rows(inputs)):
        assert loss_B[k].item() == pytest.approx(formula(x), rel=1e-9, abs=1e-12)
        if spread > 0 or name not in ("dpop", "lipo"):  # at the reference these have a kink, or jump
            found = grad_BK[k][: len(x.s)].numpy()
            np.testing.assert_allclose(found, numeric_gradient(formula, x), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ld_dpo_counts_what_is_beyond_the_shorter_response_less(alpha: float, make_batch: MakeBatch) -> None:
    loss = LDDPO(beta=0.2, alpha=alpha)
    inputs = make_batch(loss, tuple(map(len, SCORES)), seed=5, scores=SCORES, tokens=7)
    assert inputs.policy_token_logps_BKT is not None and inputs.reference_token_logps_BKT is not None
    assert inputs.token_mask_BKT is not None
    ratio = (inputs.policy_token_logps_BKT.detach() - inputs.reference_token_logps_BKT).numpy()
    expected = []
    for k, scores in enumerate(SCORES):
        w, b = int(np.argmax(scores)), len(scores) - 1 - int(np.argmin(scores[::-1]))
        tokens = [ratio[k, i][inputs.token_mask_BKT[k, i].numpy()] for i in (w, b)]
        shared = min(map(len, tokens))
        of_w, of_b = (one[:shared].sum() + alpha * one[shared:].sum() for one in tokens)
        expected.append(softplus(-0.2 * (of_w - of_b)))
    np.testing.assert_allclose(loss(inputs).loss_B.detach().numpy(), expected, rtol=1e-12)


def test_wpo_weighs_pairs_by_how_likely_they_are_now(make_batch: MakeBatch) -> None:
    inputs = make_batch(WPO(0.2), tuple(map(len, SCORES)), seed=5, scores=SCORES)
    assert inputs.wpo_log_weights_BK is not None
    above = replace(inputs, wpo_log_weights_BK=inputs.wpo_log_weights_BK + 1000.0)  # no pair counts more than once
    torch.testing.assert_close(WPO(0.2)(above).loss_B, DPO(0.2)(inputs).loss_B)
    of_token = (inputs.wpo_log_weights_BK / inputs.lengths_BK).numpy()
    dpo_B = DPO(0.2)(inputs).loss_B.detach().numpy()
    expected, output = [], WPO(0.2)(inputs)
    for k, scores in enumerate(SCORES):
        w, b = int(np.argmax(scores)), len(scores) - 1 - int(np.argmin(scores[::-1]))
        expected.append(min(1.0, np.exp(of_token[k, w] + of_token[k, b])))
    np.testing.assert_allclose(output.metrics["weight"].numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(output.loss_B.detach().numpy(), dpo_B * expected, rtol=1e-12)


def test_ld_dpo_counts_from_the_first_token_that_counts(make_batch: MakeBatch) -> None:
    """The thought before an answer is no part of it: its tokens are masked, and so are positions."""
    loss = LDDPO(beta=0.2, alpha=0.3)
    inputs = make_batch(loss, (2, 4), seed=1, tokens=4)
    token_values = ("policy_token_logps_BKT", "reference_token_logps_BKT", "token_mask_BKT")
    later = {name: torch.nn.functional.pad(getattr(inputs, name), (3, 0)) for name in token_values}
    assert torch.allclose(loss(replace(inputs, **later)).loss_B, loss(inputs).loss_B, rtol=1e-12)


def test_where_relatives_are_each_other(make_batch: MakeBatch) -> None:
    inputs = make_batch(DPO(), (2, 5, 3), seed=2)

    def same(first: Loss, second: Loss, on: LossInputs = inputs) -> None:
        torch.testing.assert_close(first(on).loss_B, second(on).loss_B, rtol=1e-9, atol=1e-12)

    same(DPOP(0.1, lam=0), DPO(0.1))
    same(IRPO(0.1, alpha=0), DPO(0.1))
    same(CPO(0.1, lam=0), Compose(reward=Reward.summed_logp, contrast=Contrast.pairwise_mean, beta=0.1))
    certain = replace(inputs, scores_BK=inputs.scores_BK * 1000)
    same(RPO(0.1), DPO(0.1), certain)  # scores that leave no doubt
    half = replace(inputs, scores_BK=torch.where(inputs.bins_BK == 0, 5.0, torch.where(inputs.bins_BK > 0, 0.0, 3.0)))
    beta = 0.1
    scaled = IPO(beta)(half).loss_B * beta**2  # (βr − ½)²: a score gap of 5 at η = 0.1
    torch.testing.assert_close(RPO(beta, 0.1, RewardDistance.squared)(half).loss_B, scaled)
    assert inputs.policy_token_logps_BKT is not None
    lengths = replace(inputs, token_mask_BKT=inputs.mask_BK[..., None].expand_as(inputs.policy_token_logps_BKT))
    filled = {
        name: torch.nan_to_num(getattr(lengths, name), nan=-1.0)
        for name in ("policy_token_logps_BKT", "reference_token_logps_BKT")
    }
    equal = replace(lengths, **filled)  # all of one length: nothing is beyond it
    sums = {name.replace("_token", "").removesuffix("T"): values.sum(-1) for name, values in filled.items()}
    same(LDDPO(0.1, alpha=0.0), DPO(0.1), replace(equal, **sums))


def test_the_best_order_is_ndcg_one(make_batch: MakeBatch) -> None:
    scores = [[1.0, 9.0, 4.0, 6.0]]
    inputs = make_batch(ApproxNDCG(), (4,), scores=scores)
    sorted_well = replace(inputs, reference_logps_BK=inputs.policy_logps_BK.detach() - 100 * torch.tensor(scores))
    for loss in (ApproxNDCG(0.1), NeuralNDCG(0.1)):
        assert loss(sorted_well).loss_B.item() == pytest.approx(-1, abs=1e-9)
        assert loss(inputs).loss_B.item() > -1 + 1e-3


def test_lipo_weighs_pairs_by_rank_and_a_pair_is_weighted_dpo(make_batch: MakeBatch) -> None:
    inputs = make_batch(LiPO(), (2, 2), scores=[[10.0, 0.0], [2.0, 5.0]], seed=4)
    weight = (1 / np.log(2) - 1 / np.log(3)) * np.array([1.0, 2**0.5 - 2**0.2])
    expected = torch.tensor(weight) * DPOAllPairs(0.1)(inputs).loss_B
    torch.testing.assert_close(LiPO(0.1)(inputs).loss_B, expected)


@pytest.mark.parametrize("loss", [LiPO(), ApproxNDCG(), NeuralNDCG()], ids=["lipo", "approx_ndcg", "neural_ndcg"])
@pytest.mark.parametrize("scores", [[-1.0, 3.0], [4.0, 11.0]])
def test_gains_of_scores_off_the_scale_are_refused(loss: Loss, scores: list[float], make_batch: MakeBatch) -> None:
    assert loss.score_range == (0.0, 10.0)
    with pytest.raises(DataError, match=r"score_max"):
        loss(make_batch(loss, (2,), scores=[scores]))
