"""How the implicit reward orders the responses of held-out sets: all of them, also those that the partition drops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mpo.failures.user_code import author, user_code
from mpo.layout.batch import to_device
from mpo.logprobs.inputs import Assignments, reference_tokens
from mpo.logprobs.reference import Reference
from mpo.losses import Loss, LossInputs
from mpo.losses.metrics import k3
from mpo.policy.module import ResponseLogps


@dataclass(frozen=True)
class Ranked:
    """One set whose scores are not all the same.

    Attributes:
        right: pairs S_i > S_j that the implicit reward orders alike, ties half.
        pairs: how many pairs there are.
        margin: the best response's implicit reward minus the mean of the others'.
    """

    right: float
    pairs: int
    margin: float


def every_response(
    logps: ResponseLogps, assignments: Assignments, part: Sequence[int], reference: Reference | None
) -> LossInputs:
    """Every response of the sets, dropped ones too: ranking is judged over all pairs. Bins are all 0."""
    sums_BK = logps.logps_BK
    mask_BK = logps.lengths_BK > 0
    scores_BK = torch.zeros(sums_BK.shape, dtype=sums_BK.dtype)
    for b, i in enumerate(part):
        scores = torch.tensor(assignments.scores(i), dtype=sums_BK.dtype)
        scores_BK[b, : len(scores)] = scores
    reference_BKT = None
    if reference is not None:
        reference_BKT = reference_tokens(reference, part, logps.token_mask_BKT)
    return LossInputs(
        policy_logps_BK=sums_BK,
        lengths_BK=logps.lengths_BK.clamp(min=1),
        scores_BK=to_device(scores_BK, sums_BK.device),
        bins_BK=torch.where(mask_BK, 0, -1),
        mask_BK=mask_BK,
        reference_logps_BK=None if reference_BKT is None else reference_BKT.sum(-1),
        policy_token_logps_BKT=logps.token_logps_BKT,
        reference_token_logps_BKT=reference_BKT,
        token_mask_BKT=logps.token_mask_BKT,
    )


def ranked(loss: Loss, inputs: LossInputs, assignments: Assignments, part: Sequence[int]) -> dict[int, Ranked]:
    """Those of the sets ``part`` whose scores are not all the same, by index.

    Args:
        inputs: of :func:`every_response`.
    """
    with torch.no_grad(), user_code(*author(loss.parts()), "loss"):
        reward_BK = loss.implicit_reward(inputs).double().cpu()
    found: dict[int, Ranked] = {}
    for b, i in enumerate(part):
        scores = assignments.scores(i)
        rewards = reward_BK[b, : len(scores)].tolist()
        ordered = [
            0.5 if rewards[x] == rewards[y] else float(rewards[x] > rewards[y])
            for x in range(len(scores))
            for y in range(len(scores))
            if scores[x] > scores[y]
        ]
        if ordered:
            best = max(range(len(scores)), key=lambda k: scores[k])
            others = [value for k, value in enumerate(rewards) if k != best]
            found[i] = Ranked(sum(ordered), len(ordered), rewards[best] - sum(others) / len(others))
    return found


def k3_per_token(inputs: LossInputs) -> list[float]:
    """For each set the mean over its response tokens of the k3 estimate, in nats; ``inputs`` have a reference."""
    assert inputs.reference_token_logps_BKT is not None and inputs.policy_token_logps_BKT is not None
    assert inputs.token_mask_BKT is not None
    delta_BKT = inputs.reference_token_logps_BKT - inputs.policy_token_logps_BKT
    k3_BKT = torch.where(inputs.token_mask_BKT, k3(delta_BKT), torch.zeros_like(delta_BKT))
    totals_B = k3_BKT.sum((1, 2)) / inputs.token_mask_BKT.sum((1, 2)).clamp(min=1)
    return totals_B.tolist()  # type: ignore[no-any-return]
