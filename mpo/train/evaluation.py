"""Held-out sets during training: loss, ranking accuracy, margin and divergence, without a trace in the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch

from mpo.layout.batch import collate
from mpo.layout.packing import SetSize, shares
from mpo.logprobs.inputs import Assignments, TrainingSets, counted, loss_inputs
from mpo.logprobs.ranking import every_response, k3_per_token, ranked
from mpo.logprobs.reference import Reference
from mpo.policy.module import ResponseLogps
from mpo.policy.pieces import joined, laid_out
from mpo.train.engine import Engine
from mpo.train.metrics import Sums
from mpo.train.random_state import unchanged_random_state
from mpo.train.user_loss import call_loss
from mpo.train.window import Problem, mismatched_log_ratio

PREFIX = "heldout/"
NAMES = ("loss", "accuracy", "margin", "kl")


@dataclass(frozen=True, eq=False)
class HeldOutSets:
    """What is evaluated on.

    Attributes:
        usable: the sets that carry signal for the loss, by position in ``sets``.
        rewards: given this process's rank and how many there are, has the policy answer its share of prompts; returns
            the sum of the scores, and their number.
    """

    sets: TrainingSets
    assignments: Assignments
    usable: Sequence[int]
    reference: Reference | None
    rewards: Callable[[int, int], tuple[float, int]] | None = None

    @property
    def indices(self) -> list[int]:
        """Sets that are forwarded: usable ones, and others whose scores differ, which can be ranked."""
        usable = set(self.usable)
        return [i for i in range(len(self.sets)) if i in usable or self.ranked(i)]

    def ranked(self, i: int) -> bool:
        """Whether not all scores of set ``i`` are the same."""
        return len(set(self.assignments.scores(i))) > 1


def evaluate(engine: Engine, training: Problem, heldout: HeldOutSets) -> dict[str, float]:
    """``heldout/…`` of the current policy, the same in every process. All processes take part, with a share each.

    ``loss`` is the mean over usable sets, of the responses that the partition keeps; ``accuracy``, ``margin`` and
    ``kl`` are those of :class:`mpo.evaluate.heldout.Ranking`, over all responses; ``reward`` is the mean score of
    responses that the policy gives; ``seconds`` is this process's time.
    What there is nothing to compute from is left out.
    """
    began = time.perf_counter()
    sets, assignments, reference = heldout.sets, heldout.assignments, heldout.reference
    problem = replace(training, sets=sets, assignments=assignments, reference=reference)
    loss, usable = problem.loss, set(heldout.usable)
    sums = Sums()
    for name in NAMES:  # every process adds up the same names, whatever its share
        sums.add(name, 0.0, 0.0)
    with torch.no_grad(), unchanged_random_state():
        point = None
        if loss.needs_mismatched_kl and heldout.usable:
            point = mismatched_log_ratio(engine, problem, heldout.usable)
        for part, logps in _forwarded(engine, problem, heldout.indices):
            every = counted(logps, sets, part)
            inputs = every_response(every, assignments, part, reference)
            if any(heldout.ranked(i) for i in part):
                for one in ranked(loss, inputs, assignments, part).values():
                    sums.add("accuracy", one.right, one.pairs)
                    sums.add("margin", one.margin)
            if reference is not None:
                sums.add("kl", sum(k3_per_token(inputs)), len(part))
            kept = _kept(every, problem, part)
            output = call_loss(loss, loss_inputs(kept, assignments, part, reference, point, loss.needs_win_rates))
            of_loss_B = output.keep_B.cpu() & torch.tensor([i in usable for i in part])
            losses_B = output.loss_B.double().cpu()
            sums.add("loss", torch.where(of_loss_B, losses_B, torch.zeros_like(losses_B)).sum(), of_loss_B.sum())
        if not engine.leads:
            sums.clear()
        if heldout.rewards is not None:
            sums.add("reward", *heldout.rewards(engine.rank, engine.world_size))
        totals = sums.reduce(engine)
    found = {f"{PREFIX}{name}": total / count for name, (total, count) in totals.items() if count > 0}
    return found | {f"{PREFIX}seconds": time.perf_counter() - began}


def _forwarded(engine: Engine, problem: Problem, indices: Sequence[int]) -> Iterator[tuple[list[int], ResponseLogps]]:
    """Every response of this process's share of ``indices``; all processes forward as often, the rest on nothing."""
    sizes = {i: SetSize.of(problem.sets[i], problem.shares_prefix) for i in indices}
    share = shares(indices, sizes, problem.micro_batch, problem.micro_tokens, engine.groups)[engine.group]
    for part in share.whole:
        logps = engine(collate([problem.sets[i] for i in part]))
        if part:
            yield part, logps
    for pieces in share.cut:
        real = [piece for piece in pieces if piece is not None]
        forwards = laid_out(problem.sets, real, problem.shares_prefix)
        seen = [engine(one.batch, one.prompt) for one in forwards]
        for _ in range(len(pieces) - len(real)):
            engine(collate([]))
        if real:
            yield [real[0][0]], reduce(joined, seen)


def _kept(logps: ResponseLogps, problem: Problem, part: Sequence[int]) -> ResponseLogps:
    """The log-probs as training sees them: responses that the partition drops are not there."""
    keep_BK = torch.zeros(logps.token_mask_BKT.shape[:2], dtype=torch.bool)
    for b, i in enumerate(part):
        bins = problem.assignments.bins(i)
        keep_BK[b, : len(bins)] = torch.tensor(bins) >= 0
    keep_BK1 = keep_BK.to(logps.token_mask_BKT.device)[..., None]
    return logps.within(logps.token_mask_BKT & keep_BK1)
