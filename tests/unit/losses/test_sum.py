"""Weighted sums of losses: the numbers, what they need, which sets count, and what cannot be added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mpo.config.targets import build, own_alone
from mpo.config.training import TrainConfig
from mpo.errors import ConfigError
from mpo.logprobs.inputs import at_reference
from mpo.losses import (
    DPO,
    GRPO,
    IPO,
    IRPO,
    KTO,
    MPO,
    SFT,
    SPPO,
    WMPO,
    WPO,
    LiPO,
    Loss,
    LossInputs,
    PlackettLuce,
    PointCE,
    SimPO,
    Sum,
    Term,
)
from mpo.partition import PARTITIONS, Everything
from mpo.train.fingerprint import fingerprint

MakeBatch = Callable[..., LossInputs]
DPO_NODE = {"_target_": "mpo.losses.DPO", "beta": 0.1}
SFT_NODE = {"_target_": "mpo.losses.SFT"}


def gradient(loss_B: Tensor, inputs: LossInputs) -> Tensor:
    return torch.autograd.grad(loss_B.sum(), inputs.policy_logps_BK)[0]


def test_value_and_gradient_add_up(make_batch: MakeBatch) -> None:
    terms = {"dpo": Term(DPO(0.1), 0.3), "mpo": Term(MPO(0.2), 2.0), "sft": Term(SFT(), 0.0)}
    inputs = make_batch(Sum(terms), (2, 4, 5))
    loss_B = Sum(terms)(inputs).loss_B
    expected_B = 0.3 * DPO(0.1)(inputs).loss_B + 2 * MPO(0.2)(inputs).loss_B
    torch.testing.assert_close(loss_B, expected_B)
    torch.testing.assert_close(gradient(loss_B, inputs), gradient(expected_B, inputs))


def test_dpo_and_likelihood_are_irpo(make_batch: MakeBatch) -> None:
    inputs = make_batch(IRPO(), (2, 4, 5))
    own = Sum({"dpo": Term(DPO(0.1)), "sft": Term(SFT(), 0.7)})
    torch.testing.assert_close(own(inputs).loss_B, IRPO(0.1, alpha=0.7)(inputs).loss_B)


def test_at_the_reference_it_is_the_sum_of_the_closed_forms(make_batch: MakeBatch) -> None:
    loss = Sum({"dpo": Term(DPO(), 0.5), "sft": Term(SFT())})
    inputs = make_batch(loss, (2, 4), spread=0.0)
    likelihood_B = SFT()(inputs).loss_B
    torch.testing.assert_close(loss(at_reference(inputs)).loss_B, 0.5 * torch.log(torch.tensor(2.0)) + likelihood_B)


def test_it_needs_what_a_term_needs() -> None:
    names = (
        "needs_reference",
        "needs_token_logps",
        "needs_mismatched_kl",
        "needs_win_rates",
        "needs_wpo_weights",
        "needs_scores",
    )

    def needs(*losses: Loss) -> list[bool]:
        loss = Sum({str(number): Term(one) for number, one in enumerate(losses)})
        return [getattr(loss, name) for name in (*names, "contrasts", "needs_sides", "continuous")]

    assert needs(SFT()) == [False, False, False, False, False, False, False, False, True]
    assert needs(SimPO(), SFT()) == [False, False, False, False, False, True, True, True, True]
    assert needs(KTO(), GRPO(), SPPO()) == [True, True, True, True, False, True, True, True, True]
    assert needs(WPO(), SFT())[4]
    assert not needs(LiPO(), SFT())[-1]


def test_a_set_counts_that_every_term_has_signal_for(make_batch: MakeBatch) -> None:
    loss = Sum({"sft": Term(SFT()), "dpo": Term(DPO())})
    inputs = make_batch(loss, (2, 2, 3), scores=[[3.0, 3.0], [1.0, 5.0], [2.0, 2.0, 2.0]])
    output = loss(inputs)
    assert output.keep_B.tolist() == [False, True, False] and output.loss_B[[0, 2]].tolist() == [0, 0]
    assert Sum({"sft": Term(SFT())})(inputs).keep_B.all()


def test_metrics_are_the_first_terms_and_each_terms_value(make_batch: MakeBatch) -> None:
    loss = Sum({"wide": Term(WMPO(0.3), 0.5), "sft": Term(SFT(), 3.0)})
    inputs = make_batch(loss, (3, 4))
    metrics, of_first = loss(inputs).metrics, WMPO(0.3)(inputs).metrics
    for name in ("margin", "accuracy", "reward_accepted", "reward_rejected"):
        assert torch.equal(metrics[name], of_first[name])
    torch.testing.assert_close(metrics["term_wide"], WMPO(0.3)(inputs).loss_B.detach())
    torch.testing.assert_close(metrics["term_sft"], SFT()(inputs).loss_B.detach())
    assert torch.equal(metrics["wide_weight_max"], of_first["weight_max"])
    assert not any(values.requires_grad for values in metrics.values())


def test_sums_of_sums(make_batch: MakeBatch) -> None:
    inner = Sum({"dpo": Term(DPO()), "sft": Term(SFT())})
    outer = Sum({"both": Term(inner, 0.5), "mpo": Term(MPO())})
    inputs = make_batch(outer, (2, 4))
    torch.testing.assert_close(outer(inputs).loss_B, 0.5 * inner(inputs).loss_B + MPO()(inputs).loss_B)
    assert outer.parts() == [DPO(), SFT(), MPO()]


@pytest.mark.parametrize(
    ("terms", "part"),
    [
        ({}, "loss.terms: no term counts; give at least one"),
        ({"a": Term(DPO(), 0.0)}, "loss.terms: no term counts"),
        ({"a": Term(DPO(), -1.0)}, "loss.terms.a.weight: terms.a.weight is -1.0"),
        ({"a": Term(DPO(), float("nan"))}, "loss.terms.a.weight"),
        ({"dpo": Term(DPO()), "point": Term(PointCE())}, "no partition suits all terms"),
    ],
)
def test_what_cannot_be_added_up_is_one_line(terms: dict[str, Term], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sum(terms)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_bins_suit_every_term() -> None:
    loss = Sum({"ranking": Term(PlackettLuce()), "sides": Term(MPO())})
    assert loss.default_partition == "mean"  # the first term's ranks do not fit the second
    with pytest.raises(ConfigError, match="MPO does not fit bins of shape ordered"):
        loss.check_partition(PARTITIONS["ranks"]())
    assert Sum({"point": Term(PointCE()), "sft": Term(SFT())}).default_partition == "everything"


def test_scores_suit_every_term() -> None:
    loss = Sum({"a": Term(PointCE(10.0)), "b": Term(PointCE(5.0)), "sft": Term(SFT())})
    assert loss.score_range == (0.0, 5.0)
    loss.check_partition(Everything())


def built(terms: Any, allow: tuple[str, ...] = ()) -> Loss:
    return build({"_target_": "mpo.losses.Sum", "terms": terms}, Loss, allow, "loss")  # type: ignore[type-abstract]


def test_terms_are_nodes_of_their_own() -> None:
    terms = {"dpo": {"weight": "0.5", "loss": DPO_NODE}, "sft": {"loss": SFT_NODE}}
    assert built(terms) == Sum({"dpo": Term(DPO(0.1), 0.5), "sft": Term(SFT(), 1.0)})


@pytest.mark.parametrize(
    ("terms", "where", "part"),
    [
        ({"dpo": {"loss": DPO_NODE | {"beat": 1}}}, "loss.terms.dpo.loss.beat", "did you mean 'beta'?"),
        ({"dpo": {"loss": DPO_NODE | {"beta": -1.0}}}, "loss.terms.dpo.loss.beta", "give a positive number"),
        ({"dpo": {"loss": DPO_NODE, "wieght": 1}}, "loss.terms.dpo.wieght", "did you mean 'weight'?"),
        ({"dpo": {"loss": DPO_NODE, "weight": "much"}}, "loss.terms.dpo.weight", "give a number"),
        ({"dpo": {"weight": 1}}, "loss.terms.dpo.loss", "has no value"),
        ({"dpo": 0.5}, "loss.terms.dpo", "give a mapping"),
        ({"dpo": {"loss": "DPO"}}, "loss.terms.dpo.loss", "give a mapping"),
        ({"dpo": {"loss": {"beta": 1}}}, "loss.terms.dpo.loss._target_", "no class is named"),
        ({"own": {"loss": {"_target_": "mine.Own"}}}, "loss.terms.own.loss._target_", "'allow_targets=[mine]'"),
        (["dpo"], "loss.terms", "give a mapping"),
    ],
)
def test_a_slip_within_a_term_names_its_key(terms: Any, where: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built(terms)
    assert caught.value.where == where and part in str(caught.value)


def test_checkpoints_of_other_terms_are_foreign() -> None:
    def named(loss: Loss) -> str:
        return fingerprint(TrainConfig(), Sum({"a": Term(loss)}), "data", [0], 0)

    assert named(DPO(0.1)) != named(IPO(0.1)) and named(DPO(0.1)) == named(DPO(0.1))


def test_a_term_of_ones_own_needs_leave(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_too.py").write_text("from mpo.losses import MPO as Own\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "mine_too.Own"}
    assert built({"own": {"loss": node}}, ("mine_too",)) == Sum({"own": Term(MPO())})
    sum_node = {"_target_": "mpo.losses.Sum", "terms": {"own": {"loss": node}}}
    assert not own_alone(sum_node) and own_alone({"_target_": "mpo.losses.Sum", "terms": {"a": {"loss": DPO_NODE}}})


@dataclass(frozen=True)
class OneNumber(MPO):
    """What a user may forget: a number for each set."""

    def per_set(self, inputs: LossInputs) -> Tensor:
        return super().per_set(inputs).mean()


def test_a_term_that_gives_one_number_for_all_sets_is_refused(make_batch: MakeBatch) -> None:
    loss = Sum({"dpo": Term(DPO()), "own": Term(OneNumber())})
    with pytest.raises(ConfigError, match=r"OneNumber.per_set has shape \[\]"):
        loss(replace(make_batch(loss, (2, 3))))
