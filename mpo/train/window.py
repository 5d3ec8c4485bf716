"""One optimizer step's window: forward and backward of every micro-batch, exact over the global batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from mpo.config.training import Precision
from mpo.errors import DataError, UserError
from mpo.layout.batch import collate, to_device
from mpo.layout.packing import Piece, SetSize, shares
from mpo.logprobs.inputs import Assignments, TrainingSets, assigned, at_reference, counted, loss_inputs, token_batch
from mpo.logprobs.reference import Reference
from mpo.losses import Loss, LossInputs, LossOutput
from mpo.policy.module import FirstPass, ResponseLogps
from mpo.policy.pieces import Forward, joined, laid_out
from mpo.track.step_profiler import span
from mpo.train.engine import Engine
from mpo.train.metrics import Sums, add_metrics
from mpo.train.user_loss import call_loss, kept_sets, try_loss

NAMED = 5
"""Prompts that an error names; the rest it counts."""
OUTPUTS_KEPT = {Precision.fp32: 8, Precision.bf16: 16}
"""Of a set in pieces, attention's outputs are kept on a CPU for up to so many times the token budget: of a token a
layer keeps some twelve times as much for its backward pass, so this is no more than what a piece and a half take."""


@dataclass(frozen=True, eq=False)
class Checked:
    """Sets of a micro-batch, and whether the loss of each is not finite: on the device, which nobody waits for."""

    ids: list[str]
    broken_B: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """What is trained on and what for; the same in every window of a run."""

    loss: Loss
    sets: TrainingSets
    assignments: Assignments
    reference: Reference | None
    micro_batch: int
    micro_tokens: int
    shares_prefix: bool

    def size(self, i: int) -> SetSize:
        """Tokens of set ``i`` that are forwarded."""
        kept = [k for k, which in enumerate(self.assignments.bins(i)) if which >= 0]
        return SetSize.of(self.sets[i], self.shares_prefix, kept)


def run_window(
    engine: Engine, problem: Problem, batch: Sequence[int], sums: Sums, compare: bool, first: bool = False
) -> list[Checked]:
    """Accumulate the gradient of the mean loss over the kept sets of the global batch.

    Each group of processes that forward together adds (sum of its sets' losses) / (kept sets of the whole global
    batch), so the result depends neither on the number of processes nor on micro-batches nor on ragged shares (design:
    exactness in distribution).

    Args:
        batch: the global batch, by position in ``problem.sets``.
        sums: gets the metrics of this process's share; empty before.
        compare: also add ``expected_loss``, the loss with the policy at the reference.
        first: of this process: try the loss on a copy of the first inputs.

    Returns:
        Which of its group's sets have a loss that is not finite, in the group's first process; ``sums`` has their
        number.

    Raises:
        DataError: no set of the batch carries signal.
    """
    loss, sets, assignments = problem.loss, problem.sets, problem.assignments
    kept = _kept(loss, assignments, batch)
    if kept == 0:
        raise DataError("no set of a global batch carries signal", sets[batch[0]].id, "use a larger train.global_batch")
    kl_reference_point = mismatched_log_ratio(engine, problem, batch) if loss.needs_mismatched_kl else None
    sizes = {i: problem.size(i) for i in batch}
    share = shares(batch, sizes, problem.micro_batch, problem.micro_tokens, engine.groups)[engine.group]
    checked: list[Checked] = []

    def learn(part: Sequence[int], logps: ResponseLogps) -> Tensor:
        """The share of the loss that the sets ``part`` have, with its metrics added up."""
        nonlocal first
        logps = counted(logps, sets, part)
        inputs = loss_inputs(logps, assignments, part, problem.reference, kl_reference_point, loss.needs_win_rates)
        if first and part:
            try_loss(loss, inputs)
            first = False
        output = call_loss(loss, inputs)
        with torch.no_grad():
            _account(sums, problem, part, inputs, output, compare)
            sums.add("tokens", sum(sizes[i].tokens for i in part))
            broken_B = ~output.loss_B.isfinite() & output.keep_B
            sums.add("broken", broken_B.sum())
        checked.append(Checked([sets[i].id for i in part], broken_B))
        return output.loss_B.sum() / kept

    waited = 0.0
    for number, part in enumerate(share.whole):
        engine.accumulate(last=number == len(share.whole) - 1 and not share.cut)
        began = time.perf_counter()
        with span("layout"):
            tokens = token_batch(sets, assignments, part)
        waited += time.perf_counter() - began
        with span("forward"):
            logps = engine(tokens)
        with span("loss"):
            # The second term is 0: it ties an empty share to the parameters, so that backward's collectives run.
            part_loss = learn(part, logps) + 0.0 * logps.token_logps_BKT.sum()
        del logps  # else its graph would be there until the next one is
        with span("backward"):
            engine.backward(part_loss)
        del part_loss
    for number, pieces in enumerate(share.cut):
        waited += _learn_in_pieces(engine, problem, pieces, learn, final=number == len(share.cut) - 1)
    sums.add("layout_seconds", waited)
    if engine.leads:
        return checked
    sums.clear()
    return []


def _learn_in_pieces(
    engine: Engine,
    problem: Problem,
    pieces: Sequence[Piece | None],
    learn: Callable[[Sequence[int], ResponseLogps], Tensor],
    final: bool,
) -> float:
    """Forward and backward of a set that is too large to be forwarded at once, in memory for one piece.

    First every piece without gradient, but for the last; then the loss of the joined log-probs and its gradient with
    respect to them; then backward of the last piece, and every other one again, its backward fed with that gradient.
    Exact, for one more forward of all pieces but one, the head left out, and attention where its outputs are kept. The
    first piece, with the prompt, goes backwards last: the others have left the prompt's gradient by then. Returns the
    seconds that laying out took.

    Args:
        pieces: of one set; None where another process has more of its own, all where it alone has a set.
        final: whether the window ends with this set.
    """
    began = time.perf_counter()
    real = [piece for piece in pieces if piece is not None]
    missing = len(pieces) - len(real)
    keep = OUTPUTS_KEPT[engine.config.precision] * problem.micro_tokens
    with span("layout"):
        forwards = laid_out(problem.sets, real, problem.shares_prefix, keep)
        forwards += [Forward(collate([]), None, FirstPass()) for _ in range(missing)]
    waited = time.perf_counter() - began
    last = len(pieces) - 1
    engine.accumulate(last=final and last == 0)
    seen = []
    for number, (batch, prompt, first) in enumerate(forwards):
        with span("forward"), torch.set_grad_enabled(number == last):
            logps = engine(batch, prompt, None if number == last else first)
        seen.append(replace(logps, token_logps_BKT=logps.token_logps_BKT.detach()))
    if real:
        values = reduce(joined, seen[: len(real)])
        leaf_1KT = values.token_logps_BKT.requires_grad_()
        with span("loss"):
            loss = learn([real[0][0]], replace(values, token_logps_BKT=leaf_1KT))
            (gradient_1KT,) = torch.autograd.grad(loss, leaf_1KT)
    else:  # every process adds up the same metrics, one without a set nothing to them
        with torch.no_grad():
            learn([], logps)
    for number in reversed(range(len(pieces))):
        if number != last:
            engine.accumulate(last=final and number == 0)
            with span("forward"):
                logps = engine(*forwards[number])
        forwards.pop()
        values_1KT = logps.token_logps_BKT
        weights_1KT = 0.0 if pieces[number] is None else gradient_1KT[..., : values_1KT.shape[-1]]
        weighted = (values_1KT * weights_1KT).sum()
        del logps, values_1KT  # else the graph would be there until the next one is
        with span("backward"):
            engine.backward(weighted)
        del weighted
    return waited


def check_loss(engine: Engine, totals: dict[str, tuple[float, float]], checked: list[Checked], step: int) -> None:
    """Stop if a set's loss is not finite. All processes take part, before the optimizer's step.

    Raises:
        UserError: names the prompts.
    """
    if totals["broken"][0] > 0:
        marked = ((one.ids, one.broken_B.tolist()) for one in checked)
        broken = [name for ids, marks in marked for name, is_broken in zip(ids, marks, strict=False) if is_broken]
        raise UserError(
            f"the loss of step {step} is not finite for {_names(engine.gather(broken))}",
            remedy="lower train.lr, use fp32, or look at these prompts",
        )


def check_gradient(norm: float, sets: TrainingSets, batch: Sequence[int], step: int) -> None:
    """Stop if the gradient norm is not finite; the optimizer has then left the weights alone.

    Raises:
        UserError: names the batch's prompts.
    """
    if not math.isfinite(norm):
        raise UserError(
            f"the gradient of step {step} is not finite; its batch: {_names([sets[i].id for i in batch])}",
            remedy="lower train.lr, use fp32, or look at these prompts",
        )


def _kept(loss: Loss, assignments: Assignments, batch: Sequence[int]) -> int:
    responses = max(len(assignments.bins(i)) for i in batch)
    marks = assigned(assignments, batch, len(batch), responses)
    return int(kept_sets(loss, marks.scores_BK, marks.bins_BK, marks.mask_BK).sum())


def mismatched_log_ratio(engine: Engine, problem: Problem, batch: Sequence[int]) -> Tensor:
    """Mean of log π_θ − log π_ref over the global batch's mismatched pairs (arXiv 2402.01306), without gradient."""
    reference = problem.reference
    if reference is None or reference.mismatched is None:
        raise ValueError("this loss needs a reference with mismatched pairs")
    pairs = {i: reference.pair(problem.sets, i) for i in batch}
    sizes = {i: SetSize.of(pair, problem.shares_prefix) for i, pair in pairs.items()}
    # A pair is one response, which is never cut into pieces: no budget makes all of them whole.
    longest = max(problem.micro_tokens, *(size.tokens for size in sizes.values()))
    share = shares(batch, sizes, problem.micro_batch, longest, engine.groups)[engine.group]
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    for part in share.whole:
        with torch.no_grad():
            logps_B = engine(collate([pairs[i] for i in part])).logps_BK[: len(part), 0].double()
        at_reference_B = torch.tensor([float(reference.mismatched[i]) for i in part], dtype=torch.float64)
        total += (logps_B - to_device(at_reference_B, engine.device)).sum()
    total *= engine.leads
    return (engine.sum(total) / len(pairs)).float().to(engine.device)


def _account(
    sums: Sums, problem: Problem, part: Sequence[int], inputs: LossInputs, output: LossOutput, compare: bool
) -> None:
    keep_B = output.keep_B
    sums.add("loss", output.loss_B.detach().double().sum(), keep_B.sum())
    add_metrics(sums, problem.loss, inputs, output)
    cut = [problem.sets[i].truncated[k] for i in part for k, b in enumerate(problem.assignments.bins(i)) if b >= 0]
    sums.add("truncated", sum(cut))
    sums.add("sets", len(part))
    if compare:
        sums.add("expected_loss", call_loss(problem.loss, at_reference(inputs)).loss_B.double().sum(), keep_B.sum())


def _names(ids: list[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
