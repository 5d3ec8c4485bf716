"""What holds for every loss: invariances, gradients, far regimes, signal, declarations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mpo.losses
from mpo.errors import ConfigError
from mpo.losses import (
    DPO,
    KTO,
    LOSSES,
    MPO,
    RPO,
    SFT,
    WMPO,
    BCOPair,
    Compose,
    Contrast,
    Deviation,
    InfoNCA,
    Link,
    Loss,
    LossInputs,
    MPORefFree,
    PointCE,
    Reward,
    RewardDistance,
    Sum,
    Term,
)
from mpo.partition import PARTITIONS, no_signal_reason

MakeBatch = Callable[..., LossInputs]

VARIANTS: dict[str, Loss] = {name: build() for name, build in LOSSES.items()}
VARIANTS |= {
    "wmpo_signed": WMPO(beta=0.1, alpha=0.5, deviation=Deviation.signed),
    "dpo_smooth": DPO(label_smoothing=0.1),
    "ref_free_margin": MPORefFree(gamma=1.4),
    "compose_length": Compose(margin=0.3, alpha=0.2, length_alpha=0.01, beta=0.1),
}
VARIANTS |= {
    "rpo_squared": RPO(distance=RewardDistance.squared),
    "list_hinge": Compose(contrast=Contrast.pairwise_mean, link=Link.hinge, beta=0.3),
    "mixed": Sum({"preference": Term(DPO(), 0.8), "quality": Term(BCOPair(), 0.2), "generation": Term(SFT())}),
    "sum_of_sets": Sum({"sides": Term(WMPO(0.3)), "scores": Term(InfoNCA(0.3), 0.5), "kto": Term(KTO(), 2.0)}),
}
VARIANTS |= {
    f"compose_{reward.value}_{contrast.value}": Compose(reward=reward, contrast=contrast, beta=0.3)
    for reward in Reward
    for contrast in (Contrast if reward is Reward.likelihood else (Contrast.pairwise_merged, Contrast.pointwise))
}
every_loss = pytest.mark.parametrize("loss", VARIANTS.values(), ids=VARIANTS.keys())


def gradient(loss: Loss, inputs: LossInputs) -> tuple[Tensor, Tensor]:
    """Loss of each set, and the gradient of their sum to the log-probs (token by token for GRPO)."""
    leaf = inputs.policy_token_logps_BKT if loss.needs_token_logps else inputs.policy_logps_BK
    assert leaf is not None
    loss_B = loss(inputs).loss_B
    (grad,) = torch.autograd.grad(loss_B.sum(), leaf)
    return loss_B.detach(), grad


def index_responses(inputs: LossInputs, order: Tensor) -> LossInputs:
    """The same batch with its responses (axis 1) taken in ``order``."""
    changed = {
        field.name: value.detach()[:, order].requires_grad_(value.requires_grad)
        for field in fields(inputs)
        if isinstance(value := getattr(inputs, field.name), Tensor) and value.dim() > 1
    }
    return replace(inputs, **changed)


@every_loss
def test_permuted_responses_permute_the_gradient(loss: Loss, make_batch: MakeBatch) -> None:
    inputs = make_batch(loss, (2, 4, 5, 7))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    loss_B, grad = gradient(loss, inputs)
    permuted_B, permuted_grad = gradient(loss, index_responses(inputs, order))
    torch.testing.assert_close(permuted_B, loss_B, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(permuted_grad, grad[:, order], rtol=1e-9, atol=1e-12)


@every_loss
def test_padding_changes_nothing_whatever_it_holds(loss: Loss, make_batch: MakeBatch) -> None:
    padded = make_batch(loss, (3, 6))
    alone = index_responses(padded, torch.arange(3))
    alone = replace(
        alone,
        **{
            field.name: value.detach()[:1].requires_grad_(value.requires_grad)
            for field in fields(alone)
            if isinstance(value := getattr(alone, field.name), Tensor) and value.dim() > 1
        },
    )
    loss_B, grad = gradient(loss, padded)
    alone_B, alone_grad = gradient(loss, alone)
    torch.testing.assert_close(loss_B[:1], alone_B, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(grad[:1, :3], alone_grad, rtol=1e-10, atol=1e-14)
    assert (grad[0, 3:] == 0).all()


@every_loss
def test_gradient_against_finite_differences(loss: Loss, make_batch: MakeBatch) -> None:
    inputs = make_batch(loss, (2, 3, 4), spread=2.0)
    name = "policy_token_logps_BKT" if loss.needs_token_logps else "policy_logps_BK"
    leaf = torch.nan_to_num(getattr(inputs, name).detach(), nan=-1.0).requires_grad_()
    scale = loss(replace(inputs, **{name: leaf})).loss_B.detach().abs().max()  # SPPO's is a million

    def scaled(values: Tensor) -> Tensor:
        return loss(replace(inputs, **{name: values})).loss_B / scale

    assert torch.autograd.gradcheck(scaled, leaf, rtol=1e-5, atol=1e-9)


@every_loss
@pytest.mark.parametrize("spread", [0.0, 800.0])
def test_float32_stays_finite(loss: Loss, make_batch: MakeBatch, spread: float) -> None:
    inputs = make_batch(loss, (2, 4, 5, 8), dtype=torch.float32, spread=spread)
    loss_B, grad = gradient(loss, inputs)
    assert torch.isfinite(loss_B).all()
    assert torch.isfinite(grad).all()
    assert loss_B.dtype == torch.float32


@every_loss
def test_certain_response_stays_finite(loss: Loss, make_batch: MakeBatch) -> None:
    inputs = make_batch(loss, (4,), dtype=torch.float32)
    loss_B, grad = gradient(loss, replace(inputs, policy_logps_BK=torch.zeros(1, 4).requires_grad_()))
    assert torch.isfinite(loss_B).all()
    assert torch.isfinite(grad).all()


@every_loss
def test_keep_says_what_the_partition_says_and_drops_without_gradient(loss: Loss, make_batch: MakeBatch) -> None:
    scores = [[3.0], [3.0, 3.0], [5.0, 1.0, 3.0], [2.0, 2.0, 2.0], [1.0, 9.0], [2.0, 4.0, 4.0]]
    inputs = make_batch(loss, tuple(map(len, scores)), scores=scores)
    reasons = [
        no_signal_reason(own, bins[: len(own)], loss.contrasts, loss.needs_sides)
        for own, bins in zip(scores, inputs.bins_BK.tolist(), strict=True)
    ]
    output = loss(inputs)
    assert output.keep_B.tolist() == [reason is None for reason in reasons]
    assert output.keep_B.tolist() == ([True] * 6 if not loss.contrasts else [False, False, True, False, True, True])
    loss_B, grad = gradient(loss, inputs)
    assert (loss_B[~output.keep_B] == 0).all()
    assert (grad[~output.keep_B] == 0).all()


def test_keep_agrees_with_the_reason_on_arbitrary_bins() -> None:
    for loss in (MPO(), VARIANTS["infonca"], SFT()):
        for scores in ([1.0, 1.0, 1.0], [1.0, 1.0, 2.0], [1.0, 2.0, 3.0]):
            for code in range(27):
                bins = [code % 3 - 1, code // 3 % 3 - 1, code // 9 - 1]
                kept = loss.keep(torch.tensor([scores]), torch.tensor([bins]), torch.ones(1, 3, dtype=torch.bool))
                reason = no_signal_reason(scores, bins, loss.contrasts, loss.needs_sides)
                assert kept.item() is (reason is None), (scores, bins, reason)


@every_loss
def test_broken_numbers_in_a_dropped_set_do_not_reach_the_others(loss: Loss, make_batch: MakeBatch) -> None:
    if not loss.contrasts:
        return  # keeps every set
    inputs = make_batch(loss, (3, 3), scores=[[4.0, 4.0, 4.0], [1.0, 5.0, 9.0]])
    name = "policy_token_logps_BKT" if loss.needs_token_logps else "policy_logps_BK"
    broken = getattr(inputs, name).detach().clone()
    broken[0] = torch.inf
    loss_B, grad = gradient(loss, replace(inputs, **{name: broken.requires_grad_()}))
    assert loss_B[0] == 0
    assert (grad[0] == 0).all()
    torch.testing.assert_close(loss_B[1], gradient(loss, inputs)[0][1])


@every_loss
def test_declared_needs_are_the_needs(loss: Loss, make_batch: MakeBatch) -> None:
    inputs = make_batch(loss, (3, 4))
    spare = replace(
        inputs,
        reference_logps_BK=inputs.reference_logps_BK if loss.needs_reference else None,
        mismatched_log_ratio=inputs.mismatched_log_ratio if loss.needs_mismatched_kl else None,
        policy_token_logps_BKT=inputs.policy_token_logps_BKT if loss.needs_token_logps else None,
        reference_token_logps_BKT=inputs.reference_token_logps_BKT if loss.needs_token_logps else None,
        token_mask_BKT=inputs.token_mask_BKT if loss.needs_token_logps else None,
        wpo_log_weights_BK=inputs.wpo_log_weights_BK if loss.needs_wpo_weights else None,
    )
    assert torch.equal(loss(spare).loss_B, loss(inputs).loss_B)
    without = replace(spare, reference_logps_BK=None, reference_token_logps_BKT=None, mismatched_log_ratio=None)
    if loss.needs_reference or loss.needs_mismatched_kl:
        with pytest.raises(ValueError, match="needs LossInputs"):
            loss(without)
    else:
        loss(without)


@every_loss
def test_default_partition_fits_and_fields_are_frozen(loss: Loss) -> None:
    loss.check_partition(PARTITIONS[loss.default_partition]())
    with pytest.raises((FrozenInstanceError, AttributeError)):
        loss.default_partition = "mean"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "partition", "fits"),
    [
        ("mpo", "mean", True),
        ("mpo", "best_vs_worst", True),
        ("mpo", "ranks", False),
        ("mpo", "everything", False),
        ("k_bin", "mean", True),
        ("dpo", "given", True),
        ("dpo", "everything", False),
        ("infonca", "top_bottom", True),
        ("point_ce", "mean", False),
        ("pair_mns", "ranks", False),
        ("sft", "mean", True),
    ],
)
def test_partitions_that_do_not_fit_are_refused_by_name(name: str, partition: str, fits: bool) -> None:
    if fits:
        VARIANTS[name].check_partition(PARTITIONS[partition]())
        return
    with pytest.raises(ConfigError, match=VARIANTS[name].default_partition):
        VARIANTS[name].check_partition(PARTITIONS[partition]())


@pytest.mark.parametrize("name", LOSSES)
def test_impossible_hyper_parameters_name_their_key(name: str) -> None:
    for field in fields(LOSSES[name]):
        if field.type != "float":
            continue
        for wrong in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ConfigError) as caught:
                LOSSES[name](**{field.name: wrong})
            assert caught.value.where == f"loss.{field.name}"


def test_composed_loss_declares_by_its_fields() -> None:
    assert Compose().needs_reference
    assert not Compose(reward=Reward.likelihood).needs_reference
    assert not Compose(contrast=Contrast.soft_target).needs_sides
    Compose(contrast=Contrast.soft_target).check_partition(PARTITIONS["everything"]())
    with pytest.raises(ConfigError):
        Compose(contrast=Contrast.pointwise).check_partition(PARTITIONS["ranks"]())


def test_point_losses_refuse_scores_that_are_no_share(make_batch: MakeBatch) -> None:
    with pytest.raises(ValueError, match="score_max"):
        PointCE(score_max=5.0)(make_batch(PointCE(), (2,), scores=[[4.0, 6.0]]))


def test_losses_import_no_numpy_of_their_own() -> None:
    folder = Path(mpo.losses.__file__).parent
    assert not [path.name for path in folder.glob("*.py") if "numpy" in path.read_text(encoding="utf-8")]
