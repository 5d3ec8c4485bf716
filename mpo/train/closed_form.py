"""The first loss of a run against its closed form: policy and reference are one model there, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mpo.config.training import Precision
from mpo.errors import UserError
from mpo.layout.batch import collate
from mpo.train.engine import Engine
from mpo.train.window import Problem

TOLERANCE = {Precision.fp32: 1e-4, Precision.bf16: 2e-2}
"""Of the mean absolute log-ratio of a token in nats, and of the loss, relative above 1."""
TIMES = 4.0
"""In bfloat16, so many times what two packings of the same responses differ by is rounding too."""
HIGHEST = 0.25
"""What no rounding explains: other templates, tokens or weights differ by more."""
RESPONSES = 8
"""That each process packs in two ways."""

Totals = dict[str, tuple[float, float]]


def check_closed_form(engine: Engine, problem: Problem, batch: Sequence[int], totals: Totals) -> None:
    """Stop if the first loss is not the loss at policy = reference, or the log-probs differ. All processes take part.

    In bfloat16 the log-probs of a large vocabulary depend on what else is in the batch, and the reference's batches
    were others. Where that may be the difference, it is measured.

    Args:
        batch: of the first window, before the optimizer's step.
        totals: of that window, over all processes.

    Raises:
        UserError: policy and reference are not the same model, tokens or layout.
    """
    kept = totals["loss"][1]
    actual, expected = totals["loss"][0] / kept, totals["expected_loss"][0] / kept
    ratio = totals["abs_log_ratio"][0] / max(totals["abs_log_ratio"][1], 1.0)
    off = ratio
    if problem.loss.continuous:
        off = max(off, abs(actual - expected) / max(1.0, abs(expected)))
    allowed = TOLERANCE[engine.config.precision]
    if off > allowed and engine.config.precision is Precision.bf16:
        allowed = tolerance(packing_noise(engine, problem, batch))
    if not off <= allowed:
        raise UserError(
            f"the first loss is {actual:.6g} but {expected:.6g} at policy = reference, and their log-probs differ by "
            f"{ratio:.2g} nats per token, {allowed:.2g} allowed",
            "train.closed_form_check",
            "compute the reference with the policy's own weights, or switch the check off if they are meant to differ",
        )


def tolerance(noise: float) -> float:
    """What bfloat16 may be off by, where two packings differ by ``noise`` nats per token."""
    return min(max(TOLERANCE[Precision.bf16], TIMES * noise), HIGHEST)


def packing_noise(engine: Engine, problem: Problem, batch: Sequence[int]) -> float:
    """Mean absolute difference of a token's log-prob between two packings: responses together, and each for itself.

    Of up to ``RESPONSES`` responses of each group's share of ``batch``, within the token budget.
    """
    chosen: dict[int, list[int]] = {}
    room, tokens = RESPONSES, 0
    for i in batch[engine.group :: engine.groups]:
        size = problem.size(i)
        for k, length in list(size.responses.items())[:2]:  # few of a set, so that several sets are there
            added = length + (0 if i in chosen else size.prompt)
            if room and (not chosen or tokens + added <= problem.micro_tokens):
                chosen.setdefault(i, []).append(k)
                room, tokens = room - 1, tokens + added
    with torch.no_grad():
        together = engine(collate([problem.sets[i] for i in chosen], list(chosen.values())))
        alone = [(b, i, k) for b, (i, responses) in enumerate(chosen.items()) for k in responses]
        sums = torch.zeros(2, dtype=torch.float64)
        for b, i, k in alone:
            one = engine(collate([problem.sets[i]], [[k]]))
            length = one.token_logps_BKT.shape[-1]
            apart_T = (one.token_logps_BKT[0, k] - together.token_logps_BKT[b, k, :length]).abs()
            sums += torch.stack([apart_T.double().sum(), one.token_mask_BKT[0, k].double().sum()]).cpu()
        for _ in range(RESPONSES - len(alone)):  # every process forwards as often
            engine(collate([]))
    total, count = engine.sum(sums * engine.leads).tolist()
    return total / max(count, 1.0)
