"""How well a policy orders held-out responses: ranking accuracy, margin, divergence from the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mpo.evaluate.estimates import Mean, mean_over_prompts, share_of_pairs
from mpo.failures.user_code import author, user_code
from mpo.logprobs.inputs import Assignments, TrainingSets, counted, reference_tokens
from mpo.logprobs.reference import Reference
from mpo.logprobs.scoring import score_sets
from mpo.losses import Loss, LossInputs
from mpo.losses.metrics import k3
from mpo.policy.module import PolicyModule, ResponseLogps
from mpo.types import ResponseSet


@dataclass(frozen=True)
class HeldOut:
    """Held-out sets, and the policies that they are forwarded through.

    Attributes:
        texts: the sets as they were before any was cut to fit, by id.
        reference: token log-probs of the training's reference; None for a loss without one.
        before_is_reference: whether the policy before training is that reference.
        load: loads the policy ``before`` training, or ``after`` it, onto this process's device.
        batch: most sets a forward pass.
        micro_tokens: most tokens a forward pass; a set above it is forwarded in pieces.
    """

    sets: TrainingSets
    texts: dict[str, ResponseSet]
    assignments: Assignments
    loss: Loss
    reference: Reference | None
    before_is_reference: bool
    load: Callable[[str], PolicyModule]
    batch: int
    micro_tokens: int


@dataclass(frozen=True)
class Ranking:
    """Estimates over held-out sets.

    Attributes:
        accuracy: share of the pairs S_i > S_j, of all sets together, that the implicit reward orders alike, ties half.
        margin: mean over sets of the best response's implicit reward minus the mean of the others'.
        kl: mean over sets of the k3 estimate of KL(reference || policy) a response token, in nats; NaN without one.
        pairs: how many pairs there were.
        accuracy_by_set, margin_by_set, kl_by_set: what these are means of, by the set's index; of the accuracy each
            set's own share, whose mean over sets is another one where some sets have more pairs.
    """

    accuracy: Mean
    margin: Mean
    kl: Mean
    pairs: int
    accuracy_by_set: dict[int, float]
    margin_by_set: dict[int, float]
    kl_by_set: dict[int, float]


def rank_heldout(
    policy: PolicyModule,
    loss: Loss,
    sets: TrainingSets,
    assignments: Assignments,
    indices: Sequence[int],
    reference: Reference | None,
    batch: int,
    micro_tokens: int,
    on_progress: Callable[[int], None],
) -> Ranking:
    """Forward every response of the sets ``indices`` and compare implicit rewards with scores.

    Args:
        batch: most sets a forward pass.
        micro_tokens: most tokens a forward pass; a set above it is forwarded in pieces.
        on_progress: called with the number of sets done.
    """
    right: dict[int, float] = {}
    pairs: dict[int, int] = {}
    margins: dict[int, float] = {}
    divergences: dict[int, float] = {}
    done = 0
    for part, every in score_sets(policy, sets, indices, batch, micro_tokens):
        logps = counted(every, sets, part)
        inputs = _inputs(logps, assignments, part, reference)
        with torch.no_grad(), user_code(*author(loss.parts()), "loss"):
            reward_BK = loss.implicit_reward(inputs).double().cpu()
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
                right[i], pairs[i] = sum(ordered), len(ordered)
                best = max(range(len(scores)), key=lambda k: scores[k])
                others = [value for k, value in enumerate(rewards) if k != best]
                margins[i] = rewards[best] - sum(others) / len(others)
        if inputs.reference_token_logps_BKT is not None:
            divergences |= zip(part, _k3_per_token(inputs), strict=True)
        done += len(part)
        on_progress(done)
    return Ranking(
        share_of_pairs([*right.values()], [*pairs.values()]),
        mean_over_prompts([*margins.values()]),
        mean_over_prompts([*divergences.values()]),
        sum(pairs.values()),
        {i: right[i] / pairs[i] for i in right},
        margins,
        divergences,
    )


def token_losses(
    policy: PolicyModule, sets: TrainingSets, batch: int, micro_tokens: int, on_progress: Callable[[int], None]
) -> dict[int, float]:
    """For each set, by its index, −log π a response token, in nats: what supervised fine-tuning lowers.

    Args:
        batch: most sets a forward pass.
        micro_tokens: most tokens a forward pass.
        on_progress: called with the number of sets done.
    """
    losses: dict[int, float] = {}
    for part, every in score_sets(policy, sets, range(len(sets)), batch, micro_tokens):
        logps = counted(every, sets, part)
        losses |= zip(part, (-logps.logps_BK.double().sum(-1) / logps.lengths_BK.sum(-1)).tolist(), strict=True)
        on_progress(len(losses))
    return losses


def longer_wins(lengths_NK: Sequence[Sequence[int]], assignments: Assignments, indices: Sequence[int]) -> float:
    """Share of the pairs S_i > S_j in which response i is longer, ties half: the baseline that reads no text."""
    right, pairs = 0.0, 0
    for i in indices:
        scores, lengths = assignments.scores(i), lengths_NK[i]
        for x in range(len(scores)):
            for y in range(len(scores)):
                if scores[x] > scores[y]:
                    pairs += 1
                    right += 0.5 if lengths[x] == lengths[y] else float(lengths[x] > lengths[y])
    return right / pairs if pairs else float("nan")


def _inputs(
    logps: ResponseLogps, assignments: Assignments, part: Sequence[int], reference: Reference | None
) -> LossInputs:
    """Every response of the sets, dropped ones too: ranking is judged over all pairs. Bins are all 0."""
    sums_BK = logps.logps_BK
    mask_BK = logps.lengths_BK > 0
    scores_BK = torch.zeros_like(sums_BK)
    for b, i in enumerate(part):
        scores = torch.tensor(assignments.scores(i), dtype=sums_BK.dtype)
        scores_BK[b, : len(scores)] = scores.to(sums_BK.device)
    reference_BKT = None
    if reference is not None:
        reference_BKT = reference_tokens(reference, part, logps.token_mask_BKT).to(sums_BK.device)
    return LossInputs(
        policy_logps_BK=sums_BK,
        lengths_BK=logps.lengths_BK.clamp(min=1),
        scores_BK=scores_BK,
        bins_BK=torch.where(mask_BK, 0, -1),
        mask_BK=mask_BK,
        reference_logps_BK=None if reference_BKT is None else reference_BKT.sum(-1),
        policy_token_logps_BKT=logps.token_logps_BKT,
        reference_token_logps_BKT=reference_BKT,
        token_mask_BKT=logps.token_mask_BKT,
    )


def _k3_per_token(inputs: LossInputs) -> list[float]:
    """For each set the mean over its response tokens of the k3 estimate."""
    assert inputs.reference_token_logps_BKT is not None and inputs.policy_token_logps_BKT is not None
    assert inputs.token_mask_BKT is not None
    delta_BKT = inputs.reference_token_logps_BKT - inputs.policy_token_logps_BKT
    k3_BKT = torch.where(inputs.token_mask_BKT, k3(delta_BKT), torch.zeros_like(delta_BKT))
    totals_B = k3_BKT.sum((1, 2)) / inputs.token_mask_BKT.sum((1, 2)).clamp(min=1)
    return [float(value) for value in totals_B]
