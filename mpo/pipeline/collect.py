"""From finished stages to the record of a run."""

from __future__ import annotations

import datetime
import math
import shutil
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import Store, read_json
from mpo.config.schema import RunConfig
from mpo.pipeline.execute import METRICS_FILE
from mpo.pipeline.graph import Graph
from mpo.planning.forecast import Forecast
from mpo.report.records import Baseline, Distribution, Estimate, Planned, RunReport, SampleRow, StageRow
from mpo.stages.context import EVALUATION_FILE, SUMMARY_FILE, to_plain
from mpo.track import provenance
from mpo.track.metrics import read_metrics


@dataclass(frozen=True)
class Identity:
    """Which run it was: its own folder, a name and a title for people, the command that repeats it."""

    folder: Path
    name: str
    title: str
    command: str


def collect(
    config: RunConfig,
    graph: Graph,
    store: Store,
    rows: Sequence[StageRow],
    forecast: Forecast | None,
    identity: Identity,
) -> RunReport:
    """The run's record, saved in its folder with copies of its metrics and a link to the trained policy."""
    folder = identity.folder
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
        name=identity.name,
        title=identity.title,
        config=to_plain(config),
        seed=config.seed,
        versions=provenance.versions(),
        commit=provenance.commit(),
        hardware=", ".join(filter(None, (provenance.hardware(), *_devices(graph, store)))),
        command=identity.command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        stages=tuple(rows),
        planned=_planned(forecast, graph, store, rows),
        metrics_paths=tuple(metrics_paths),
        evaluation=estimates,
        distributions=tuple(
            Distribution(row["name"], row["unit"], {key: tuple(values) for key, values in row["series"].items()})
            for row in evaluations[-1]["distributions"]
        ),
        data_facts=_facts(graph, store, rows),
        skipped=_skipped(graph, store),
        samples=tuple(SampleRow(**row) for row in evaluations[-1]["samples"]),
    )
    report.save()
    return report


def _planned(forecast: Forecast | None, graph: Graph, store: Store, rows: Sequence[StageRow]) -> tuple[Planned, ...]:
    """The last training's forecast beside what it took, if it ran now: another machine may have built a cached one."""
    train = graph.rounds[-1].train
    built = [row for row in rows if row.path == str(store.path(train)) and not row.cached]
    if forecast is None or not built or built[0].peak_memory_bytes is None:
        return ()
    steps = [row["step_seconds"] for row in read_metrics(store.path(train) / METRICS_FILE)]
    memory = Planned("memory of a process", "bytes", forecast.memory.device, built[0].peak_memory_bytes)
    if forecast.seconds is None:
        return (memory,)
    return Planned("a training step", "seconds", forecast.seconds, statistics.median(steps)), memory


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


def _facts(graph: Graph, store: Store, rows: Sequence[StageRow]) -> dict[str, str | int | float]:
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
                    facts[label] = _over_rounds(split, facts.get(label), value)
            label = f"{split}: sets with a signal"
            facts[label] = _over_rounds(split, facts.get(label), partition[split]["usable"])
    facts["layout"] = read_json(store.path(graph.rounds[-1].train) / SUMMARY_FILE)["layout"]
    references = [one.reference for one in graph.rounds if one.reference is not None]
    if references:
        built = {row.path for row in rows if not row.cached}
        forwarded = [read_json(store.path(one) / SUMMARY_FILE) for one in references if str(store.path(one)) in built]
        facts["reference: sets forwarded by this run"] = sum(
            split["sets"] for summary in forwarded for split in summary.values()
        )
    return facts


def _over_rounds(split: str, before: Any, value: float) -> Any:
    """Training sets are others in every round, the held-out ones the same."""
    return value if before is None or split == "heldout" else before + value


def _skipped(graph: Graph, store: Store) -> dict[str, int]:
    """Sets that were left out, by split and reason, over reading, tokenising and partition; what had a warning."""
    data = read_json(store.path(graph.data) / SUMMARY_FILE)
    found: dict[tuple[str, str], int] = {}
    for split, part in data["skipped"].items():
        for reason, count in part.items():
            found[split, reason] = count
    warnings = Counter(data["warnings"])
    for number, one in enumerate(graph.rounds):
        of_round: dict[tuple[str, str], int] = {}
        for split, summary in read_json(store.path(one.prepare) / SUMMARY_FILE).items():
            if number == 0 or split == "train":  # the held-out sets are the same in every round
                warnings.update(summary["warnings"])
        sets = one.prepare.inputs["sets"]
        sampled = [sets.inputs["sets"]] if sets.task == "score" else []
        for stage in (*sampled, one.prepare, one.partition):
            for split, summary in read_json(store.path(stage) / SUMMARY_FILE).items():
                for reason, count in summary["skipped"].items():
                    of_round[split, reason] = of_round.get((split, reason), 0) + count
        for (split, reason), count in of_round.items():
            found[split, reason] = _over_rounds(split, found.get((split, reason)), count)
    names = {"train": "", "heldout": "held out: "}
    total = {f"{names[split]}{reason}": count for (split, reason), count in found.items()}
    if data["left_out_because_heldout"]:
        total["prompt is held out"] = data["left_out_because_heldout"]
    return total | {f"used, with a warning: {reason}": count for reason, count in warnings.items()}
