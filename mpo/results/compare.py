"""Two sets of runs, paired: over prompts within each seed and starting policy, then over seeds. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpo.errors import DataError
from mpo.evaluate.records import About
from mpo.report.labels import differing_keys
from mpo.results.groups import last_rounds, newest
from mpo.results.keys import result_config, start_key
from mpo.results.paired import Paired, paired
from mpo.results.records import Row, Run
from mpo.results.store import Results
from mpo.results.titles import title

_Unit = tuple[int, str]
"""Seed and starting policy."""


@dataclass(frozen=True)
class Pair:
    """A run of A and one of B with the same seed and starting policy.

    Attributes:
        start: hash of the starting policy.
        a, b: means over the common prompts; where there are no values by prompt, the runs' estimates.
        test: over the common prompts; None where there are no values by prompt.
        left_out: prompts that one of the runs lacks, or has no number of.
    """

    seed: int
    start: str
    a: float
    b: float
    test: Paired | None
    left_out: int


@dataclass(frozen=True)
class Comparison:
    """One estimate of A minus that of B.

    Attributes:
        about: metric, split, temperature, None for the round (each run's last), judge, baseline.
        pairs: by seed and starting policy.
        over_pairs: the pairs' mean differences, each pair a single draw.
        over_prompts: the prompts that all pairs have, differences averaged over the pairs; None for a single pair, or
            without values by prompt.
    """

    about: About
    unit: str
    pairs: tuple[Pair, ...]
    over_pairs: Paired
    over_prompts: Paired | None


@dataclass(frozen=True)
class Sides:
    """The runs of A and B by seed and starting policy, and what was left out, a sentence each."""

    a: Mapping[_Unit, Run]
    b: Mapping[_Unit, Run]
    common: tuple[_Unit, ...]
    notes: tuple[str, ...]


def compare(store: Results, rows_a: Sequence[Row], rows_b: Sequence[Row]) -> tuple[list[Comparison], Sides]:
    """Every estimate that both have, of each run's last round.

    Raises:
        DataError: of a seed and starting policy several configurations are meant, or one run by both; no seed and
            starting policy is in both, or no estimate.
    """
    (kept_a, older_a), (kept_b, older_b) = newest(last_rounds(rows_a)), newest(last_rounds(rows_b))
    a, b = _by_unit(kept_a, "A"), _by_unit(kept_b, "B")
    common = tuple(sorted(a.keys() & b.keys()))
    if not common:
        raise DataError(f"no seed and starting policy are in both: A has {_said(a)}, B has {_said(b)}", "",
                        "compare runs of the same seeds")  # fmt: skip
    for unit in common:
        if a[unit].id == b[unit].id:
            raise DataError(f"run {a[unit].id} is in both A and B", "", "give conditions that tell them apart")
    notes = [
        f"{side}: runs without a partner that are left out: {len(own) - len(common)} of {len(own)}"
        for side, own in (("A", a), ("B", b))
        if len(own) > len(common)
    ]
    notes += [
        f"{side}: older runs of the same configuration and seed that are left out: {older}"
        for side, older in (("A", older_a), ("B", older_b))
        if older
    ]
    of_a, of_b = _by_about(kept_a), _by_about(kept_b)
    notes += [
        f"{side}: estimates that the other lacks, which are left out: {', '.join(map(title, lacking))}"
        for side, own, other in (("A", of_a, of_b), ("B", of_b, of_a))
        if (lacking := [about for about in own if about not in other])
    ]
    values = {run.id: _values(store, run) for side in (a, b) for unit, run in side.items() if unit in common}
    found = []
    for about in (each for each in of_a if each in of_b):
        usable = [unit for unit in common if unit in of_a[about] and unit in of_b[about]]
        rows = [(of_a[about][unit], of_b[about][unit]) for unit in usable]
        if rows:
            found.append(_compared(about, usable, rows, values))
    if not found:
        raise DataError("A and B have no estimate in common", "", "see python -m mpo.results list")
    return found, Sides(a, b, common, tuple(notes))


def _compared(
    about: About,
    units: Sequence[_Unit],
    rows: Sequence[tuple[Row, Row]],
    values: Mapping[str, Mapping[About, Mapping[str, float]]],
) -> Comparison:
    pairs, by_prompt = [], []
    for (seed, start), (row_a, row_b) in zip(units, rows, strict=True):
        of_a, of_b = values[row_a.run.id].get(about), values[row_b.run.id].get(about)
        if of_a is None or of_b is None:
            pairs.append(Pair(seed, start, row_a.value, row_b.value, None, 0))
            continue
        shared = [key for key in of_a if key in of_b and math.isfinite(of_a[key]) and math.isfinite(of_b[key])]
        differences = {key: of_a[key] - of_b[key] for key in shared}
        by_prompt.append(differences)
        mean_a, mean_b = (statistics.fmean(of[key] for key in shared) if shared else math.nan for of in (of_a, of_b))
        left_out = len(of_a.keys() | of_b.keys()) - len(shared)
        pairs.append(Pair(seed, start, mean_a, mean_b, paired([*differences.values()]), left_out))
    over_prompts = None
    if len(pairs) > 1 and len(by_prompt) == len(pairs):
        everywhere = [key for key in by_prompt[0] if all(key in other for other in by_prompt)]
        over_prompts = paired([statistics.fmean(of[key] for of in by_prompt) for key in everywhere])
    means = [pair.a - pair.b for pair in pairs]
    over_pairs = paired([mean for mean in means if math.isfinite(mean)])
    return Comparison(about, rows[0][0].unit, tuple(pairs), over_pairs, over_prompts)


def _by_unit(rows: Sequence[Row], side: str) -> dict[_Unit, Run]:
    found: dict[_Unit, Run] = {}
    for run in {row.run.id: row.run for row in rows}.values():
        unit = run.seed, start_key(run.config)
        other = found.setdefault(unit, run)
        if other.id != run.id:
            keys = ", ".join(differing_keys([result_config(other.config), result_config(run.config)])[:5])
            what = f"{side} has several configurations of seed {run.seed}, which differ in {keys}"
            raise DataError(what, "", "add a condition: KEY=VALUE,KEY=VALUE")
    return found


def _by_about(rows: Sequence[Row]) -> dict[About, dict[_Unit, Row]]:
    found: dict[About, dict[_Unit, Row]] = {}
    for row in rows:
        about = _whatever_round(row.estimate.about)
        found.setdefault(about, {})[row.run.seed, start_key(row.run.config)] = row
    return found


def _values(store: Results, run: Run) -> dict[About, dict[str, float]]:
    """Values by prompt of the last round's estimates: a later round overrides an earlier one."""
    found = sorted(store.all_prompt_values(run), key=lambda each: each.round or 0)
    return {_whatever_round(each.about): dict(zip(each.prompts, each.values, strict=True)) for each in found}


def _whatever_round(about: About) -> About:
    metric, split, temperature, _, judge, baseline = about
    return metric, split, temperature, None, judge, baseline


def _said(side: Mapping[_Unit, Run]) -> str:
    return "seeds " + ", ".join(dict.fromkeys(str(seed) for seed, _ in sorted(side)))
