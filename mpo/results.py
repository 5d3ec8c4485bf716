"""From finished stages to the record of a run."""

from __future__ import annotations

import datetime
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpo import provenance
from mpo.artifacts import Store, read_json
from mpo.config.schema import RunConfig
from mpo.execute import METRICS_FILE
from mpo.regimes import Graph
from mpo.report.records import Baseline, Distribution, Estimate, RunReport, SampleRow, StageRow
from mpo.stages.context import EVALUATION_FILE, SUMMARY_FILE, to_plain


def collect(
    config: RunConfig, graph: Graph, store: Store, rows: Sequence[StageRow], folder: Path, name: str, title: str
) -> RunReport:
    """The run's record, saved in ``folder`` with copies of its metrics and a link to the trained policy."""
    evaluations = [read_json(store.path(one.evaluate) / EVALUATION_FILE) for one in graph.rounds]
    several = len(graph.rounds) > 1
    metrics_paths = []
    for number, one in enumerate(graph.rounds, 1):
        target = f"round{number}-{METRICS_FILE}" if several else METRICS_FILE
        shutil.copyfile(store.path(one.train) / METRICS_FILE, folder / target)
        metrics_paths.append(target)
    estimates = {key: _estimate(row) for key, row in evaluations[-1]["estimates"].items()}
    if several:
        for number, evaluation in enumerate(evaluations, 1):
            for key, row in evaluation["estimates"].items():
                if key.startswith(("true reward", "win rate")):
                    estimates[f"{key}, round {number}"] = _estimate(row)
    link = folder / "policy"
    link.unlink(missing_ok=True)
    link.symlink_to(store.path(graph.rounds[-1].train) / "policy", target_is_directory=True)
    report = RunReport(
        folder=folder,
        name=name,
        title=title,
        config=to_plain(config),
        seed=config.seed,
        versions=provenance.versions(),
        commit=provenance.commit(),
        hardware=", ".join(filter(None, (provenance.hardware(), *_devices(graph, store)))),
        command=provenance.command(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        stages=tuple(rows),
        metrics_paths=tuple(metrics_paths),
        evaluation=estimates,
        distributions=tuple(
            Distribution(row["name"], row["unit"], {key: tuple(values) for key, values in row["series"].items()})
            for row in evaluations[-1]["distributions"]
        ),
        data_facts=_facts(graph, store),
        skipped=_skipped(graph, store),
        samples=tuple(SampleRow(**row) for row in evaluations[-1]["samples"]),
    )
    report.save()
    return report


def _estimate(row: dict[str, Any]) -> Estimate:
    baselines = tuple(
        Baseline(base["name"], _number(base["value"]), base["standard_error"]) for base in row["baselines"]
    )
    return Estimate(_number(row["value"]), row["standard_error"], row["unit"], row["count"], baselines)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _devices(graph: Graph, store: Store) -> list[str]:
    device = store.manifest(graph.rounds[-1].train)["usage"].get("device")
    return [device] if device else []


def _facts(graph: Graph, store: Store) -> dict[str, str | int | float]:
    """Sizes of what was trained on, over all rounds."""
    facts: dict[str, str | int | float] = {}
    data = read_json(store.path(graph.data) / SUMMARY_FILE)
    facts["source"] = data["source"]
    for one in graph.rounds:
        prepared = read_json(store.path(one.prepare) / SUMMARY_FILE)
        partition = read_json(store.path(one.partition) / SUMMARY_FILE)
        for split, values in prepared.items():
            for key, value in values.items():
                if isinstance(value, int | float):
                    label = f"{split}: {key.replace('_', ' ')}"
                    facts[label] = facts.get(label, 0) + value  # type: ignore[operator]
            label = f"{split}: sets with a signal"
            facts[label] = facts.get(label, 0) + partition[split]["usable"]
    return facts


def _skipped(graph: Graph, store: Store) -> dict[str, int]:
    """Sets that were left out, by reason, over reading, tokenising and partition."""
    total: dict[str, int] = {}
    parts = [read_json(store.path(graph.data) / SUMMARY_FILE)["skipped"]]
    for one in graph.rounds:
        for stage in (one.prepare, one.partition):
            parts += [split["skipped"] for split in read_json(store.path(stage) / SUMMARY_FILE).values()]
    for part in parts:
        for reason, count in part.items():
            total[reason] = total.get(reason, 0) + count
    return total
