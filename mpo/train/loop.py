"""The training loop. It knows no loss: log-probs go in, a number for each set comes out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpo.config.training import TrainConfig
from mpo.errors import DataError, UserError
from mpo.logprobs.inputs import Assignments, TrainingSets
from mpo.logprobs.reference import Reference
from mpo.losses import Loss
from mpo.policy.devices import broadcast_from_rank0
from mpo.policy.module import PolicyModule
from mpo.track.metrics import read_metrics
from mpo.track.step_profiler import StepProfiler, span
from mpo.train.batches import BatchPlan
from mpo.train.best import Evaluations
from mpo.train.checkpoint import CHECKPOINTS, METRICS, Checkpoints, Position
from mpo.train.closed_form import check_closed_form
from mpo.train.divergence import Divergence
from mpo.train.engine import Engine
from mpo.train.evaluation import HeldOutSets, evaluate
from mpo.train.fingerprint import fingerprint
from mpo.train.metrics import AS_IN_TRL, MetricsLog, Sums, peak_memory, peak_reserved
from mpo.train.stop import STOPPED, StopSignal
from mpo.train.window import Problem, check_gradient, check_loss, run_window


@dataclass(frozen=True)
class TrainSummary:
    """What a finished run did.

    Attributes:
        steps: optimizer steps, those before a resumption included.
        resumed_at: steps that were done when this process began.
        seconds: wall clock of this process's steps.
        checkpoint_seconds: of them, those that they waited for checkpoints.
        last: metrics of the last step; empty where no step was left to do.
        stopped_early: whether evaluations ended it, without improvement or behind ``stop_behind``.
        behind: the latter.
        best_step: whose weights the policy has, where ``keep_best`` chose; 0: those of the last step.
        best_value: of that metric.
        diverged_at: step from which on it counted as diverged, see :mod:`mpo.train.divergence`; 0: it did not.
    """

    steps: int
    resumed_at: int
    seconds: float
    last: dict[str, Any]
    stopped_early: bool = False
    behind: bool = False
    best_step: int = 0
    best_value: float | None = None
    diverged_at: int = 0
    checkpoint_seconds: float = 0.0


def train(
    policy: PolicyModule,
    loss: Loss,
    sets: TrainingSets,
    assignments: Assignments,
    indices: Sequence[int],
    reference: Reference | None,
    config: TrainConfig,
    seed: int,
    out: Path,
    on_step: Callable[[dict[str, Any]], None] = lambda row: None,
    skipped: Mapping[str, int] | None = None,
    on_warning: Callable[[str], None] = warnings.warn,
    state: Path | None = None,
    heldout: HeldOutSets | None = None,
    keep_state: bool = False,
) -> TrainSummary:
    """Train ``policy`` in place, from the newest undamaged checkpoint under ``out`` where there is one.

    Called in every process of the group that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT describe.
    Writes ``metrics.jsonl`` and ``checkpoints/`` into ``out``, with ``profile`` also a trace of some steps of the first
    process. SIGTERM saves a checkpoint after the step in flight.

    Args:
        indices: the sets to train on, those with signal, by position in ``sets``.
        reference: for losses with ``needs_reference``; also gives the divergence where a loss needs none.
        seed: of the order of the sets.
        on_step: gets the metrics of each step in the first process.
        skipped: sets without signal that ``indices`` leaves out, by reason; every row of the metrics repeats them.
        on_warning: gets a line, in the first process, for each damaged checkpoint, when the training diverges, and for
            a trace that cannot be written.
        state: what the training that made ``policy`` has kept: this one goes on with its optimizer and schedule.
        heldout: what ``evaluate_every`` evaluates on, also after the last step.
        keep_state: the exported policy's folder in ``checkpoints/`` is to hold the optimizer too.

    Raises:
        DataError: nothing to train on, or no value of the metric that ``keep_best`` names.
        UserError: a loss or gradient that isn't finite, a first loss off its closed form, a foreign checkpoint, a
            training that diverges and is to be stopped then.
        SystemExit: with status 143, after SIGTERM.
    """
    if not indices:
        raise DataError(
            "no set carries signal for this loss", remedy="look at the counts by reason, or change partition"
        )
    plan = BatchPlan(indices, config.global_batch, seed)
    total_steps = plan.steps_per_epoch * config.epochs
    total_steps = total_steps if config.max_steps is None else min(total_steps, config.max_steps)
    policy.head.wants_square_sums = loss.needs_wpo_weights
    engine = Engine(policy, config, total_steps)
    settings = fingerprint(config, loss, sets.fingerprint, indices, seed)
    checkpoints = Checkpoints(out / CHECKPOINTS, settings, config, out / METRICS, on_warning, keep_state)
    start = checkpoints.resume(engine)
    if start.step == 0 and state is not None:
        checkpoints.carry_on(engine, state)
    log = MetricsLog(out / METRICS, start.metrics) if engine.rank == 0 else None
    budget = config.settled.row_tokens
    problem = Problem(loss, sets, assignments, reference, config.micro_batch, budget, policy.shares_prefix)
    row: dict[str, Any] = {}
    evaluations, divergence = _so_far(out / METRICS, engine.rank, config)
    if divergence.step:
        _diverged(divergence, config, on_warning if engine.rank == 0 else None)
    done = start.step
    profiled = total_steps - done if config.profile and engine.rank == 0 else 0
    began = time.perf_counter()
    with StopSignal() as stop, closing(engine), StepProfiler(out, profiled, engine.device, on_warning) as profiler:
        while done < total_steps and not evaluations.over:
            step, done = done, done + 1
            batch = plan.batch(step)
            compare = step == 0 and config.closed_form_check and reference is not None and loss.needs_reference
            with profiler.step(done):
                row, stopping, overdue = _step(
                    engine, problem, batch, step, compare, step == start.step, stop, checkpoints
                )
            row["epoch"] = plan.epoch(step)
            row |= {f"skipped/{reason}": count for reason, count in (skipped or {}).items()}
            every = config.evaluate_every
            if heldout is not None and every and (done == total_steps or done % every == 0):
                row |= evaluate(engine, problem, heldout)
                evaluations.check(row)
            improved = evaluations.add(row)
            if log is not None:
                log.write(row)
                on_step(row)
            if divergence.add(row):
                _diverged(divergence, config, on_warning if engine.rank == 0 else None)
            finished = done == total_steps or evaluations.over
            # Also after the last step: the export that follows it may be stopped, or find its disk full.
            due = finished or stopping or overdue or checkpoints.due(done)
            if due or improved:
                best = evaluations.step or (done if finished else 0)
                position = Position(done, 0 if log is None else log.position, best, finished)
                checkpoints.save(engine, position, step=due, policy=best == done)
            if stopping:
                checkpoints.finish(engine)
                raise SystemExit(STOPPED)
            checkpoints.check()
        checkpoints.finish(engine)
        if start.finished or evaluations.step not in (0, done):
            checkpoints.load_policy(engine, evaluations.step or done)
    if stop.asked:  # after the last step has looked: its checkpoint is there, what follows can be done by the next run
        raise SystemExit(STOPPED)
    if config.keep_best and not evaluations.step and engine.rank == 0:
        on_warning(f"{config.keep_best} was never a finite number, so the policy is that of the last step")
    if log is not None:
        log.close()
    if not row and log is not None:  # all steps were done when an earlier process was stopped
        row = read_metrics(out / METRICS)[-1]
    return TrainSummary(
        steps=done,
        resumed_at=start.step,
        seconds=time.perf_counter() - began,
        last=row,
        stopped_early=done < total_steps,
        behind=evaluations.behind,
        best_step=evaluations.step,
        best_value=evaluations.value if evaluations.step else None,
        diverged_at=divergence.step,
        checkpoint_seconds=checkpoints.seconds,
    )


def _so_far(metrics: Path, rank: int, config: TrainConfig) -> tuple[Evaluations, Divergence]:
    """What the steps before a resumption amount to; the same in every process."""
    evaluations, divergence = Evaluations(config.keep_best, config.stop_after, config.stop_behind), Divergence()
    if rank == 0:
        for row in read_metrics(metrics):
            evaluations.add(row)
            divergence.add(row)
    return broadcast_from_rank0((evaluations, divergence))


def _diverged(divergence: Divergence, config: TrainConfig, on_warning: Callable[[str], None] | None) -> None:
    """Say so, or stop."""
    what = f"the training diverged at step {divergence.step}: {divergence.reason}"
    if config.stop_if_diverged:
        raise UserError(what, "train.stop_if_diverged", "lower train.lr, raise the loss's beta, or train fewer epochs")
    if on_warning is not None:
        on_warning(what)


def _step(
    engine: Engine,
    problem: Problem,
    batch: list[int],
    step: int,
    compare: bool,
    first: bool,
    stop: StopSignal,
    checkpoints: Checkpoints,
) -> tuple[dict[str, Any], bool, bool]:
    """One optimizer step. Returns its metrics, whether any process was asked to stop, and whether a checkpoint is due
    by the first one's clock."""
    began = time.perf_counter()
    sums = Sums()
    checked = run_window(engine, problem, batch, sums, compare, first)
    sums.add("memory_bytes", peak_memory(engine.device))
    if (reserved := peak_reserved(engine.device)) is not None:
        sums.add("memory_reserved_bytes", reserved)
    sums.add("stop", float(stop.asked))
    sums.add("overdue", float(engine.rank == 0 and checkpoints.overdue()))
    totals = sums.reduce(engine)
    check_loss(engine, totals, checked, step)
    if compare:
        check_closed_form(engine, problem, batch, totals)
    lr = engine.lr
    with span("update"):
        norm = engine.step()
    check_gradient(norm, problem.sets, batch, step)
    seconds = time.perf_counter() - began
    row = _row(totals, step, seconds) | {"lr": lr, "grad_norm": norm}
    return row, totals["stop"][0] > 0, totals["overdue"][0] > 0


def _row(totals: dict[str, tuple[float, float]], step: int, seconds: float) -> dict[str, Any]:
    """Metrics by name: means, but ``truncated`` (responses of this step's batch) and rates a second."""
    counts = {"truncated", "layout_seconds", "tokens", "sets", "abs_log_ratio", "expected_loss"}
    counts |= {"broken", "stop", "overdue"}
    row: dict[str, Any] = {"step": step + 1}
    row |= {name: total / count for name, (total, count) in totals.items() if name not in counts and count > 0}
    row |= {other: row[name] for name, other in AS_IN_TRL.items() if name in row}
    row["truncated"] = int(totals["truncated"][0])
    row["step_seconds"] = seconds
    row["tokens_per_second"] = totals["tokens"][0] / seconds
    row["layout_share"] = totals["layout_seconds"][0] / totals["layout_seconds"][1] / seconds
    row["sets_per_second"] = totals["sets"][0] / seconds
    return row
