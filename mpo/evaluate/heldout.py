"""How well a policy orders held-out responses: ranking accuracy, margin, divergence from the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpo.evaluate.estimates import Mean, mean_over_prompts, share_of_pairs
from mpo.logprobs.inputs import Assignments, TrainingSets, counted
from mpo.logprobs.ranking import every_response, k3_per_token, ranked
from mpo.logprobs.reference import Reference
from mpo.logprobs.scoring import FrozenPolicy, score_sets
from mpo.losses import Loss
from mpo.policy.devices import gathered_from_all, place_in_group
from mpo.types import ResponseSet


@dataclass(frozen=True)
class HeldOut:
    """Held-out sets, and the policies that they are forwarded through.

    Attributes:
        texts: the sets as they were before any was cut to fit, by id.
        reference: token log-probs of the training's reference; None for a loss without one.
        before_is_reference: whether the policy before training is that reference.
        load: loads the policy ``before`` training, or ``after`` it, onto this process's device, or in shards onto those
            of its group.
        batch: most sets a forward pass.
        micro_tokens: most tokens a forward pass; a set above it is forwarded in pieces.
    """

    sets: TrainingSets
    texts: dict[str, ResponseSet]
    assignments: Assignments
    loss: Loss
    reference: Reference | None
    before_is_reference: bool
    load: Callable[[str], FrozenPolicy]
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
    policy: FrozenPolicy,
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

    Each process of a group forwards its share; all return the same.

    Args:
        batch: most sets a forward pass.
        micro_tokens: most tokens a forward pass; a set above it is forwarded in pieces.
        on_progress: called with the number of sets done.
    """
    rank, size = _share_of(policy)
    right: dict[int, float] = {}
    pairs: dict[int, int] = {}
    margins: dict[int, float] = {}
    divergences: dict[int, float] = {}
    done = 0
    for part, every in score_sets(policy, sets, indices[rank::size], batch, micro_tokens):
        logps = counted(every, sets, part)
        inputs = every_response(logps, assignments, part, reference)
        for i, one in ranked(loss, inputs, assignments, part).items():
            right[i], pairs[i], margins[i] = one.right, one.pairs, one.margin
        if inputs.reference_token_logps_BKT is not None:
            divergences |= zip(part, k3_per_token(inputs), strict=True)
        done += len(part) * size
        on_progress(min(done, len(indices)))
    right, pairs, margins, divergences = (_of_all(each, indices) for each in (right, pairs, margins, divergences))
    return Ranking(
        share_of_pairs([*right.values()], [*pairs.values()]),
        mean_over_prompts([*margins.values()]),
        mean_over_prompts([*divergences.values()]),
        sum(pairs.values()),
        {i: right[i] / pairs[i] for i in right},
        margins,
        divergences,
    )


def _share_of(policy: FrozenPolicy) -> tuple[int, int]:
    """Which share of the sets this process forwards, alone or with others, and how many shares there are."""
    rank, size = place_in_group()
    return rank // policy.together, size // policy.together


def _of_all(values: dict[int, Any], indices: Sequence[int]) -> dict[int, Any]:
    """Those of all processes, in the order of ``indices``: sums of them do not depend on the number of processes."""
    together = {i: value for part in gathered_from_all(values) for i, value in part.items()}
    return {i: together[i] for i in indices if i in together}


def token_losses(
    policy: FrozenPolicy, sets: TrainingSets, batch: int, micro_tokens: int, on_progress: Callable[[int], None]
) -> dict[int, float]:
    """For each set, by its index, −log π a response token, in nats: what supervised fine-tuning lowers.

    Each process of a group forwards its share; all return the same.

    Args:
        batch: most sets a forward pass.
        micro_tokens: most tokens a forward pass.
        on_progress: called with the number of sets done.
    """
    rank, size = _share_of(policy)
    losses: dict[int, float] = {}
    for part, every in score_sets(policy, sets, range(rank, len(sets), size), batch, micro_tokens):
        logps = counted(every, sets, part)
        losses |= zip(part, (-logps.logps_BK.double().sum(-1) / logps.lengths_BK.sum(-1)).tolist(), strict=True)
        on_progress(min(size * len(losses), len(sets)))
    return _of_all(losses, range(len(sets)))


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
