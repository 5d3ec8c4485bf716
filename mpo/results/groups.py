"""Means over seeds: runs that differ in nothing else are one group. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mpo.evaluate.records import About
from mpo.report.labels import differing_keys, labels_of, values_of
from mpo.results.keys import result_config
from mpo.results.records import Row, Run


@dataclass(frozen=True, slots=True)
class Mean:
    """One estimate of one group.

    Attributes:
        group: short name: what tells it apart from the other groups.
        config_key: of its runs.
        about: metric, split, temperature, round, judge, baseline.
        standard_error: over seeds; of a single seed that of its run, over prompts; None where it is not known.
        seeds: whose values the mean is of.
        missing: seeds whose value is not a number, so that they are left out.
    """

    group: str
    config_key: str
    about: About
    value: float
    standard_error: float | None
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    unit: str


def last_rounds(rows: Sequence[Row]) -> list[Row]:
    """Estimates of each run's last round."""
    last: dict[str, int] = {}
    for row in rows:
        if row.round is not None:
            last[row.run.id] = max(row.round, last.get(row.run.id, 0))
    return [row for row in rows if row.round == last.get(row.run.id)]


def newest(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """Rows of each configuration's and seed's newest run (see :attr:`Run.created`), and how many runs are left out."""
    chosen: dict[str, Run] = {}
    for row in rows:
        known = chosen.get(row.run.run_key)
        if known is None or (row.run.created, row.run.id) > (known.created, known.id):
            chosen[row.run.run_key] = row.run
    kept = {run.id for run in chosen.values()}
    return [row for row in rows if row.run.id in kept], len({row.run.id for row in rows} - kept)


def means(rows: Sequence[Row]) -> list[Mean]:
    """A mean over seeds for each group and estimate, in order of appearance; of each seed there must be one run."""
    labels = group_labels([row.run for row in rows])
    grouped: dict[tuple[str, About], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.run.config_key, row.estimate.about), []).append(row)
    order = {key: place for place, key in enumerate(dict.fromkeys(key for key, _ in grouped))}
    return [
        _mean(labels[key], key, about, members)
        for (key, about), members in sorted(grouped.items(), key=lambda each: order[each[0][0]])
    ]


def group_labels(runs: Sequence[Run]) -> dict[str, str]:
    """A short name for each configuration, by its key; the whole key behind it where two have the same name."""
    configs = {run.config_key: result_config(run.config) for run in runs}
    keys = differing_keys(list(configs.values())) or ("loss._target_",)
    values = {key: values_of(config, keys) for key, config in configs.items()}
    distinct = list(dict.fromkeys(values.values()))
    named = labels_of(distinct, keys) if len(distinct) > 1 else {distinct[0]: distinct[0][0]}
    labels = {key: named[value] for key, value in values.items()}
    return {
        key: label if list(labels.values()).count(label) == 1 else f"{label} ({key[:8]})"
        for key, label in labels.items()
    }


def _mean(label: str, key: str, about: About, rows: Sequence[Row]) -> Mean:
    found = [row for row in rows if math.isfinite(row.value)]
    values = [row.value for row in found]
    error = found[0].standard_error if len(found) == 1 else None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return Mean(
        label,
        key,
        about,
        statistics.fmean(values) if values else math.nan,
        error,
        tuple(sorted(row.run.seed for row in found)),
        tuple(sorted(row.run.seed for row in rows if not math.isfinite(row.value))),
        rows[0].unit,
    )
