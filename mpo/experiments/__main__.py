"""``python -m mpo.experiments mpo_table1 scale=micro``: the runs of a table or figure, then its page."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpo.errors import EXIT_CODE, FAILURE_CODE, ConfigError, ProcessError, UserError
from mpo.experiments.cells import Cell, by_run, cells_of, tuned_settings
from mpo.experiments.options import Options, Where, parse
from mpo.experiments.spec import Experiment, Kind, Scale, load, load_scale, names, scales

USAGE = """python -m mpo.experiments NAME… [key=value …]

Runs what a table or figure of the papers needs, skipping what is finished, and writes its page.
The same command goes on where it was stopped; tables share runs.

  names     {names}, or tables for all
  scale=    {scales}
  units=N   replications (starting policies × seeds)
  jobs=N    runs at a time; by default one a GPU, or one a core
  gpus=N    cards of each run; by default those of the scale
  launcher= local, slurm (slurm.partition=… slurm.timeout_min=… go to submitit)
  out=DIR runs=DIR
  'overrides=[key=value,…]' of every run
  show=true writes pages from what is finished; dry_run=true plans every run
"""


MISSING_SHOWN = 5
"""Missing runs that are named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's exit status: 2 for a user's mistake, 1 where a run failed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or any(one in ("-h", "--help") for one in given):
        print(USAGE.format(names=", ".join(names()), scales=", ".join(scales())))
        return 0
    try:
        options = parse(given)
        scale = load_scale(options.scale)
        experiments = _experiments(options)
        return _plan(options, scale, experiments) if options.dry_run else _run(options, scale, experiments)
    except UserError as error:
        print(f"mpo: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("mpo: stopped; the same command goes on from where it was", file=sys.stderr)
        return 143
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _experiments(options: Options) -> dict[str, Experiment]:
    """Those of the names that there are at the scale; raises ConfigError where there is none of them."""
    every = {name: load(name) for name in options.experiments}
    found = {name: one for name, one in every.items() if options.scale not in one.not_at}
    if not found:
        raise ConfigError(f"not at scale {options.scale}", ", ".join(every), "choose another scale")
    if left := [name for name in every if name not in found]:
        print(f"mpo: not at this scale: {', '.join(left)}")
    return found


def _cells(options: Options, scale: Scale, experiments: dict[str, Experiment]) -> dict[str, list[Cell]]:
    tuned, units = tuned_settings(options.scale), options.units or scale.units
    return {
        name: cells_of(one, options.scale, scale, units, {} if one.kind is Kind.tuning else tuned, options.overrides)
        for name, one in experiments.items()
        if one.kind is not Kind.simulation
    }


def _run(options: Options, scale: Scale, experiments: dict[str, Experiment]) -> int:
    from mpo.experiments.execute import is_damaged, result_of

    out = Path(options.out or f"outputs/experiments/{options.scale}").resolve()
    runs = Path(options.runs).resolve() if options.runs else out / "runs"
    of = _cells(options, scale, experiments)
    needed = by_run(cell for cells in of.values() for cell in cells)
    results = {key: result_of(runs / key) for key in needed}
    missing = [cell for key, cell in needed.items() if results[key] is None]
    missing.sort(key=lambda cell: cell.unit)  # one starting policy after another, whose stages they share
    print(f"mpo: {len(experiments)} tables and figures at {scale.title}: {len(needed)} runs, "
          f"{len(needed) - len(missing)} of them finished", flush=True)  # fmt: skip
    for cell in [cell for cell in missing if is_damaged(runs / cell.key)]:
        print(f"mpo: the result in {runs / cell.key} cannot be read and counts as missing", flush=True)
    _say_other_code([found.commit for found in results.values() if found is not None], runs)
    options.gpus = options.gpus or scale.gpus
    failed, stopped = _run_all(options, [] if options.show else missing, runs)
    from mpo.experiments.page import write_experiment, write_index
    from mpo.experiments.tuned import write_tuned

    units, shown = options.units or scale.units, []
    for name, one in experiments.items():
        if one.kind is Kind.tuning and stopped is None:
            print(f"settings of each loss  {write_tuned(one, of[name], options.scale, scale, runs)}")
        if one.kind is Kind.tuning:
            continue
        shown.append(write_experiment(name, one, options.scale, scale, of.get(name, []), units, runs, out))
        print(f"{name}  {out / f'{name}.md'}{_missing(shown[-1].missing)}", flush=True)
    if len(shown) > 1:
        ended = [found.seconds for key in needed if (found := result_of(runs / key)) is not None]
        print(f"all of them  {write_index(shown, options.scale, scale, units, ended, out)}")
    for cell, error in failed:
        print(f"mpo: error: {cell.label}: {error}", file=sys.stderr)
    if stopped is not None:
        raise stopped
    return FAILURE_CODE if failed else 0


def _run_all(options: Options, missing: Sequence[Cell], runs: Path) -> tuple[list[tuple[Cell, str]], UserError | None]:
    """What failed, and what kept the rest from being run: the pages show what is finished all the same."""
    failed: list[tuple[Cell, str]] = []
    try:
        for one in _failures(options, missing, runs) if missing else ():
            failed.append(one)
    except ProcessError as error:
        return failed, error
    return failed, None


def _say_other_code(commits: Sequence[str], runs: Path) -> None:
    """Say how many finished runs other code has made: they are shown as they are, and not made again."""
    from mpo.track.provenance import commit

    now = commit()
    others = [one for one in commits if one != now]
    if others:
        print(f"mpo: {len(others)} finished runs are of another commit than this one; delete {runs} to make them again",
              flush=True)  # fmt: skip


def _failures(options: Options, missing: Sequence[Cell], runs: Path) -> Iterator[tuple[Cell, str]]:
    """Run what is missing, a line each; yields what failed."""
    from mpo.experiments.execute import run_here
    from mpo.track.units import duration

    gpus = options.gpus or 1
    devices = _device_groups(gpus) if options.launcher is Where.local else []
    jobs = options.jobs or len(devices) or len(os.sched_getaffinity(0))
    started = time.monotonic()
    if options.launcher is Where.slurm:
        from mpo.experiments.slurm import run_on_slurm

        outcomes = run_on_slurm(missing, runs, options.slurm, gpus, jobs)
    else:
        outcomes = run_here(missing, runs, min(jobs, len(missing)), devices)
    for number, (cell, outcome) in enumerate(outcomes, 1):
        passed = time.monotonic() - started
        left = duration(passed / number * (len(missing) - number))
        ended = f"failed: {outcome.error}" if outcome.error else f"done in {duration(outcome.seconds)}"
        print(f"[{number}/{len(missing)}] {cell.label}: {ended}; about {left} left", flush=True)
        if outcome.error:
            yield cell, outcome.error


def _missing(labels: Sequence[str]) -> str:
    """The first of what is missing, and how many that is."""
    first = ", ".join(labels[:MISSING_SHOWN]) + (", …" if len(labels) > MISSING_SHOWN else "")
    return f"  ({len(labels)} runs are missing: {first})" if labels else ""


def _device_groups(gpus: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each run; empty on a machine without cards.

    Raises:
        ConfigError: there are cards, but fewer than ``gpus``.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        cards = [str(number) for number in range(torch.cuda.device_count())]
    else:
        cards = [one for one in visible.split(",") if one]
    if 0 < len(cards) < gpus:
        raise ConfigError(f"{gpus} cards a run, but {len(cards)} here", "gpus", f"set gpus={len(cards)}")
    return [",".join(cards[first : first + gpus]) for first in range(0, len(cards) - gpus + 1, gpus)]


def _plan(options: Options, scale: Scale, experiments: dict[str, Experiment]) -> int:
    """Compose and plan the first replication of every run, a line each, and a page of them."""
    import tempfile

    from mpo.cache.artifacts import write_text
    from mpo.config.messages import explain
    from mpo.experiments.planned import PlannedRun, plan, plan_page
    from mpo.track.units import duration

    options.units = 1
    planned: dict[str, list[PlannedRun]] = {}
    seen: dict[str, PlannedRun] = {}
    refused: list[str] = []
    for name, cells in _cells(options, scale, experiments).items():
        print(name, flush=True)
        for cell in by_run(cells).values():
            again = cell.key in seen
            if not again:
                try:
                    with tempfile.TemporaryDirectory() as folder:
                        seen[cell.key] = plan(cell, scale.plan_for, Path(folder))
                except Exception as error:  # each is reported, and the others are planned
                    mistake = explain(error)
                    if mistake is None:
                        raise
                    print(f"  {cell.label}: mpo: error: {mistake}", flush=True)
                    refused.append(f"{name}, {cell.label}: {mistake}")
                    continue
            one = seen[cell.key]
            planned.setdefault(name, []).append(PlannedRun(cell, one.facts, one.seconds, again))
            print(f"  {cell.label}: {'as above, ' if again else ''}{one.length}; {one.memory}", flush=True)
    known = [one.seconds for one in seen.values() if one.seconds is not None]
    unknown = f", {len(seen) - len(known)} of unknown length" if len(known) < len(seen) else ""
    print(f"{len(seen)} runs of one replication, about {duration(sum(known))} in all{unknown}; "
          f"replications by default: {scale.units}")  # fmt: skip
    if options.out is not None:
        page = Path(options.out).resolve() / "README.md"
        write_text(page, plan_page(planned, options.scale, scale, refused))
        print(f"plan  {page}")
    return EXIT_CODE if refused else 0


if __name__ == "__main__":
    sys.exit(main())
