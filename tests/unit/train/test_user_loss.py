"""A loss of the user's own that is not what the contract says stops with one line at the first step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mpo.errors import ConfigError
from mpo.losses import LOSSES, Loss, LossInputs
from mpo.partition import PARTITIONS
from mpo.train.user_loss import call_loss, try_loss


def inputs(grad: bool = True) -> LossInputs:
    """Two sets of three responses of up to four tokens, the last response of the second set absent."""
    torch.manual_seed(0)
    mask_BKT = torch.ones(2, 3, 4, dtype=torch.bool)
    mask_BKT[1, 2] = False
    tokens_BKT = (-torch.rand(2, 3, 4) * mask_BKT).requires_grad_(grad)
    reference_BKT = -torch.rand(2, 3, 4) * mask_BKT
    scores_BK = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 0.0]], dtype=torch.float64)
    return LossInputs(
        policy_logps_BK=tokens_BKT.sum(-1),
        lengths_BK=mask_BKT.sum(-1),
        scores_BK=scores_BK,
        bins_BK=torch.tensor([[0, 1, -1], [0, 1, -1]]),
        mask_BK=torch.tensor([[True, True, True], [True, True, False]]),
        reference_logps_BK=reference_BKT.sum(-1),
        mismatched_log_ratio=torch.tensor(0.1),
        policy_token_logps_BKT=tokens_BKT,
        reference_token_logps_BKT=reference_BKT,
        token_mask_BKT=mask_BKT,
        wpo_log_weights_BK=tokens_BKT.detach().sum(-1) / 2,
    )


@dataclass(frozen=True)
class Mine(Loss):
    needs_reference: ClassVar[bool] = True
    make: Callable[[Tensor], Any] = lambda x: x

    def implicit_reward(self, inputs: LossInputs) -> Tensor:
        return inputs.policy_logps_BK

    def per_set(self, inputs: LossInputs) -> Tensor:
        return self.make(inputs.policy_logps_BK.square().sum(-1))  # type: ignore[no-any-return]


class Keeps(Mine):
    def keep(self, scores_BK: Tensor, bins_BK: Tensor, mask_BK: Tensor) -> Tensor:
        return mask_BK  # of responses


class KeepsNumbers(Mine):
    def keep(self, scores_BK: Tensor, bins_BK: Tensor, mask_BK: Tensor) -> Tensor:
        return mask_BK.any(-1).float()


class KeepsOthers(Mine):
    def __call__(self, inputs: LossInputs) -> Any:
        return replace(super().__call__(inputs), keep_B=torch.tensor([True, False]))


class Scalar(Mine):
    def __call__(self, inputs: LossInputs) -> Any:
        return super().__call__(inputs).loss_B.mean()


class Mean(Mine):
    def __call__(self, inputs: LossInputs) -> Any:
        output = super().__call__(inputs)
        return replace(output, loss_B=output.loss_B.mean())


class OddMetric(Mine):
    def extra_metrics(self, inputs: LossInputs) -> dict[str, Tensor]:
        return {"share": torch.tensor(0.5)}


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"compose"}))
def test_every_loss_of_mpo_passes(name: str) -> None:
    loss = LOSSES[name]()
    if loss.needs_win_rates:
        pytest.skip("its inputs have win rates beside")
    given = inputs()
    before = given.policy_token_logps_BKT
    assert before is not None
    try_loss(loss, given)
    assert before.grad is None and call_loss(loss, given).loss_B.requires_grad
    assert loss.default_partition in PARTITIONS


WRONG: list[tuple[Loss, str]] = [
    (Mine(lambda x: x.detach()), "Mine's result has no gradient with respect to the policy's log-probs"),
    (Mine(lambda x: torch.zeros(2, requires_grad=True) * 1), "Mine's result has no gradient with respect to"),
    (Mine(lambda x: x.sum()), r"Mine\.per_set has shape \[\] and torch\.float32, for 2 sets; return a float tensor"),
    (Mine(lambda x: x[:1]), r"Mine\.per_set has shape \[1\]"),
    (Mine(lambda x: x[:, None].expand(2, 3)), r"Mine\.per_set has shape \[2, 3\]"),
    (Mine(lambda x: (x > 0).long()), r"Mine\.per_set has shape \[2\] and torch\.int64"),
    (Mine(lambda x: None), r"Mine\.per_set is of type NoneType"),
    (Mine(lambda x: x.tolist()), r"Mine\.per_set is of type list"),
    (Mine(lambda x: 1 / 0), r"Mine raised ZeroDivisionError: division by zero at test_user_loss\.py:\d+; correct it"),
    (Mine(lambda x: sys.exit(0)), r"Mine called exit\(0\) at test_user_loss\.py:\d+; correct it"),
    (Keeps(), r"Keeps\.keep has shape \[2, 3\] and torch\.bool, for 2 sets; return a bool tensor"),
    (KeepsNumbers(), r"KeepsNumbers\.keep has shape \[2\] and torch\.float32"),
    (KeepsOthers(), r"KeepsOthers keeps other sets than its own keep\(\) says"),
    (Mean(), r"Mean's loss_B has shape \[\]"),
    (Scalar(), "Scalar returned Tensor; return a LossOutput"),
    (OddMetric(), r"OddMetric's metric 'share' has shape \[\]"),
]


@pytest.mark.parametrize(("loss", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_what_no_loss_is_stops_with_one_line(loss: Loss, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^loss: {message}") as raised:
        try_loss(loss, inputs())
    assert len(str(raised.value)) < 400


def test_later_steps_are_looked_at_too() -> None:
    with pytest.raises(ConfigError, match="has no gradient"):
        call_loss(Mine(lambda x: x.detach()), inputs())
    with torch.no_grad():
        call_loss(Mine(), inputs())
    call_loss(Mine(), inputs(grad=False))


def test_trying_a_loss_leaves_the_random_numbers_of_the_run_alone() -> None:
    loss = Mine(lambda x_B: x_B + torch.rand(len(x_B)))
    given = inputs()
    before = torch.get_rng_state()
    try_loss(loss, given)
    assert torch.equal(torch.get_rng_state(), before)
