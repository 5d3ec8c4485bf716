"""Tokens that are no part of a loss: read by the policy, and then left out of sums, lengths and the reference."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from mpo.logprobs.inputs import counted, reference_tokens
from mpo.policy.module import ResponseLogps

LOGPS = torch.tensor([[[-1.0, -2.0, -4.0], [-8.0, -16.0, 0.0]], [[-32.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
MASK = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 0, 0], [0, 0, 0]]], dtype=torch.bool)


@dataclass
class One:
    uncounted: list[int]
    id: str = ""
    prompt_ids: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int32))
    response_ids: list[np.ndarray] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)


class Sets(list[One]):
    fingerprint = ""
    max_tokens = 9


class Stored:
    def logps(self, i: int) -> list[np.ndarray]:
        return (
            [np.array([0.5, 1.0, 2.0], np.float32), np.array([4.0, 8.0], np.float32)] if i == 1 else [np.array([3.0])]
        )


def test_sums_and_lengths_are_of_what_comes_after_them() -> None:
    logps = ResponseLogps(LOGPS.clone().requires_grad_(), MASK)
    found = counted(logps, Sets([One([9]), One([1, 0]), One([0])]), [1, 2])
    assert found.logps_BK.tolist() == [[-6.0, -24.0], [-32.0, 0.0]] and found.lengths_BK.tolist() == [[2, 2], [1, 0]]
    (gradient,) = torch.autograd.grad(found.logps_BK.sum(), logps.token_logps_BKT)
    assert gradient[0].tolist() == [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    reference = reference_tokens(Stored(), [1, 2], found.token_mask_BKT)  # type: ignore[arg-type]
    assert reference.sum(-1).tolist() == [[3.0, 12.0], [3.0, 0.0]]


def test_without_any_nothing_is_computed() -> None:
    logps = ResponseLogps(LOGPS, MASK)
    assert counted(logps, Sets([One([0, 0]), One([0])]), [0, 1]) is logps
    assert counted(logps, Sets(), []) is logps
