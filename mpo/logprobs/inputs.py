"""From sets, assignments and log-probs to what a loss gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mpo.layout.batch import PromptResponses, TokenBatch, collate, to_device
from mpo.logprobs.reference import Reference
from mpo.losses import LossInputs
from mpo.losses.inputs import win_rates
from mpo.policy.module import ResponseLogps


class TrainingSet(PromptResponses, Protocol):
    """A tokenised set that also knows which responses were cut to fit, and how many tokens at the beginning of each are
    no part of a loss."""

    @property
    def truncated(self) -> Sequence[bool]: ...
    @property
    def uncounted(self) -> Sequence[int]: ...


class TrainingSets(Protocol):
    """Tokenised sets by position; ``fingerprint`` names their content, ``max_tokens`` no prompt and response passes."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def max_tokens(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> TrainingSet: ...


class Assignments(Protocol):
    """What the partition stage says of each set, by the set's position."""

    def scores(self, i: int) -> Sequence[float]:
        """Transformed scores, one a response."""
        ...

    def bins(self, i: int) -> Sequence[int]:
        """Bins, one a response: 0 best, larger is worse, -1 dropped."""
        ...


@dataclass(frozen=True, eq=False)
class Assigned:
    """Assignments of B sets padded to K: scores (float64, 0 elsewhere), bins (-1 elsewhere), mask of kept responses.

    Dropped responses count as absent: they are not forwarded, so nothing is known of them.
    """

    scores_BK: Tensor
    bins_BK: Tensor
    mask_BK: Tensor


def sampled_win_rates(assignments: Assignments, indices: Sequence[int], sets: int, responses: int) -> Tensor:
    """``LossInputs.win_rates_BK`` of ``indices``: over all responses, those that the partition drops included."""
    scores_BK = torch.zeros(sets, responses, dtype=torch.float64)
    real_BK = torch.zeros(sets, responses, dtype=torch.bool)
    for b, i in enumerate(indices):
        scores = assignments.scores(i)
        scores_BK[b, : len(scores)] = torch.tensor(scores, dtype=torch.float64)
        real_BK[b, : len(scores)] = True
    return win_rates(scores_BK, real_BK)


def assigned(assignments: Assignments, indices: Sequence[int], sets: int, responses: int) -> Assigned:
    """Scores and bins of ``indices`` as tensors of ``sets`` x ``responses``, the rest padding."""
    scores_BK = np.zeros((sets, responses))  # float64, as the partition saw them: rounded, two scores may become one
    bins_BK = np.full((sets, responses), -1, dtype=np.int64)
    for b, i in enumerate(indices):
        bins = assignments.bins(i)
        bins_BK[b, : len(bins)] = bins
        scores_BK[b, : len(bins)] = assignments.scores(i)
    scores_BK[bins_BK < 0] = 0.0
    return Assigned(torch.from_numpy(scores_BK), torch.from_numpy(bins_BK), torch.from_numpy(bins_BK >= 0))


def token_batch(sets: TrainingSets, assignments: Assignments, indices: Sequence[int]) -> TokenBatch:
    """The kept responses of ``indices``, to be forwarded."""
    keep = [[k for k, which in enumerate(assignments.bins(i)) if which >= 0] for i in indices]
    return collate([sets[i] for i in indices], keep)


def reference_tokens(reference: Reference, indices: Sequence[int], token_mask_BKT: Tensor) -> Tensor:
    """Reference log-probs in the shape of the policy's and on its device, ``[B,K,T]`` float32, 0 outside the mask."""
    values_BKT = np.zeros(tuple(token_mask_BKT.shape), dtype=np.float32)
    for b, i in enumerate(indices):
        for k, logps in enumerate(reference.logps(i)):
            there = logps[: values_BKT.shape[-1]]  # one that was not forwarded may be longer
            values_BKT[b, k, : len(there)] = there
    found_BKT = to_device(torch.from_numpy(values_BKT), token_mask_BKT.device)
    return torch.where(token_mask_BKT, found_BKT, torch.zeros_like(found_BKT))


def counted(logps: ResponseLogps, sets: TrainingSets, indices: Sequence[int]) -> ResponseLogps:
    """``logps`` of the sets ``indices`` without the tokens that are no part of a loss."""
    uncounted = [sets[i].uncounted for i in indices]
    if not any(any(of_set) for of_set in uncounted):
        return logps
    first_BK = torch.zeros(logps.token_mask_BKT.shape[:2], dtype=torch.long)
    for b, of_set in enumerate(uncounted):
        first_BK[b, : len(of_set)] = torch.tensor(of_set)
    device = logps.token_mask_BKT.device
    steps_T = torch.arange(logps.token_mask_BKT.shape[-1], device=device)
    return logps.within(logps.token_mask_BKT & (steps_T >= to_device(first_BK, device)[..., None]))


def loss_inputs(
    logps: ResponseLogps,
    assignments: Assignments,
    indices: Sequence[int],
    reference: Reference | None,
    mismatched_log_ratio: Tensor | None,
    needs_win_rates: bool = False,
) -> LossInputs:
    """What a loss gets for the micro-batch ``indices`` with log-probs ``logps``, on their device.

    For an empty ``indices`` every set is padding.
    """
    device = logps.token_logps_BKT.device
    sets, responses, _ = logps.token_logps_BKT.shape
    marks = assigned(assignments, indices, sets, responses)
    reference_BKT = None
    if reference is not None:
        reference_BKT = reference_tokens(reference, indices, logps.token_mask_BKT)
    win_rates_BK = None
    if needs_win_rates:
        win_rates_BK = to_device(sampled_win_rates(assignments, indices, sets, responses), device)
    return LossInputs(
        policy_logps_BK=logps.logps_BK,
        lengths_BK=logps.lengths_BK,
        scores_BK=to_device(marks.scores_BK, device),
        bins_BK=to_device(marks.bins_BK, device),
        mask_BK=to_device(marks.mask_BK, device),
        reference_logps_BK=None if reference_BKT is None else reference_BKT.sum(-1),
        mismatched_log_ratio=mismatched_log_ratio,
        policy_token_logps_BKT=logps.token_logps_BKT,
        reference_token_logps_BKT=reference_BKT,
        token_mask_BKT=logps.token_mask_BKT,
        win_rates_BK=win_rates_BK,
        wpo_log_weights_BK=_wpo_log_weights(logps),
    )


def _wpo_log_weights(logps: ResponseLogps) -> Tensor | None:
    if logps.token_square_sums_BKT is None:
        return None
    return (logps.token_logps_BKT.detach() - logps.token_square_sums_BKT).sum(-1)


def at_reference(inputs: LossInputs) -> LossInputs:
    """The same inputs with the policy at the reference, where the loss has its closed form.

    Raises:
        ValueError: the inputs have no reference.
    """
    if inputs.reference_logps_BK is None:
        raise ValueError("the inputs have no reference")
    kl_reference_point = inputs.mismatched_log_ratio
    return replace(
        inputs,
        policy_logps_BK=inputs.reference_logps_BK,
        policy_token_logps_BKT=inputs.reference_token_logps_BKT,
        mismatched_log_ratio=None if kl_reference_point is None else torch.zeros_like(kl_reference_point),
    )
