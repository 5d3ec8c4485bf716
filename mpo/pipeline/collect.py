"""From finished stages to the record of a run."""

from __future__ import annotations

import datetime
import shutil
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import Store, read_json
from mpo.cache.stage import Stage
from mpo.config.schema import RunConfig
from mpo.config.source import source_of
from mpo.pipeline.execute import METRICS_FILE
from mpo.pipeline.graph import Graph
from mpo.pipeline.profiles import profiles
from mpo.pipeline.rounds import round_rows, scored_responses
from mpo.plain import to_plain
from mpo.planning.forecast import Forecast
from mpo.report.records import STOPPED_BEHIND, Planned, RankedScores, RunReport, StageRow, read_findings
from mpo.sample.unwanted import DROPPED, REDRAWN
from mpo.score.agreement import SAME_BEST, SAME_ORDER
from mpo.stages.context import EVALUATION_FILE
from mpo.stages.nodes.data import PARTS
from mpo.stages.nodes.score import BY_RANK, MEANS
from mpo.stages.summary import Summary
from mpo.track import provenance
from mpo.track.metrics import read_metrics

OF_SAMPLES = {
    "cut_at_limit": "responses cut at the limit",
    "empty": "empty responses",
    "equal_texts": "responses equal to another of their set",
    "thoughts": "responses with a thought",
    "unended_thoughts": "responses whose thought does not end",
}
"""Facts of the sampling stage that a report shows."""


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
    several = len(graph.rounds) > 1
    metrics_paths = []
    for number, one in enumerate(graph.rounds, 1):
        target = f"round{number}-{METRICS_FILE}" if several else METRICS_FILE
        shutil.copyfile(store.path(one.train) / METRICS_FILE, folder / target)
        metrics_paths.append(target)
    estimates, by_prompt, distributions, rows_shown = [], [], [], []
    for number, one in enumerate(graph.rounds, 1):
        for measure in one.measures:
            found = read_findings(read_json(store.path(measure) / EVALUATION_FILE))
            of_round = number if several else None
            estimates += [replace(each, round=of_round) for each in found.estimates]
            by_prompt += [replace(each, round=of_round) for each in found.by_prompt]
            if number == len(graph.rounds):
                distributions += found.distributions
                rows_shown += found.samples
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
        profiles=profiles(graph.stages(store), store),
        metrics_paths=tuple(metrics_paths),
        note=source_of(config.data, config.allow_targets).note,
        evaluation=tuple(estimates),
        distributions=tuple(distributions),
        data_facts=_facts(graph, store, rows),
        skipped=_skipped(graph, store),
        samples=tuple(rows_shown),
        scores=tuple(_scores(graph, store)),
        rounds=tuple(round_rows(graph, store)),
        scored=tuple(scored_responses(graph, store)),
        by_prompt=tuple(by_prompt),
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


def _devices(graph: Graph, store: Store) -> list[str]:
    device = store.manifest(graph.rounds[-1].train)["usage"].get("device")
    return [device] if device else []


def _summary(store: Store, stage: Stage) -> Summary:
    return Summary.read(store.path(stage))


def _facts(graph: Graph, store: Store, rows: Sequence[StageRow]) -> dict[str, str | int | float]:
    """Sizes of what was trained on, over all rounds."""
    read = _summary(store, graph.data)
    facts: dict[str, str | int | float] = {"source": read.fact("source")}
    for part, values in read.facts[""].get(PARTS, {}).items():
        facts |= {f"part {part}: {key}": value for key, value in values.items()}
    for one in graph.rounds:
        usable = _summary(store, one.partition).facts
        for split, values in _summary(store, one.prepare).facts.items():
            for key, value in {**values, "sets with a signal": usable[split]["usable"]}.items():
                label = f"{split}: {key.replace('_', ' ')}"
                facts[label] = _over_rounds(split, facts.get(label), value)
    facts |= _drawn(graph, store)
    facts |= _trained(graph, store)
    facts["layout"] = _summary(store, graph.rounds[-1].train).fact("layout")
    references = [one.reference for one in graph.rounds if one.reference is not None]
    if references:
        built = {row.path for row in rows if not row.cached}
        forwarded = [_summary(store, one) for one in references if str(store.path(one)) in built]
        facts["reference: sets forwarded by this run"] = sum(
            split["sets"] for summary in forwarded for split in summary.facts.values()
        )
    return facts


def _trained(graph: Graph, store: Store) -> dict[str, str | int | float]:
    """What became of each training otherwise than by taking its last step as planned."""
    found: dict[str, str | int | float] = {}
    for number, one in enumerate(graph.rounds, 1):
        of_round = f"round {number}, " if len(graph.rounds) > 1 else ""
        metric, trained = one.train.config.train.keep_best, _summary(store, one.train).facts[""]
        if metric is not None:
            found[f"{of_round}training: policy of step"] = trained["best_step"] or trained["steps"]
            found[f"{of_round}training: best {metric}"] = (
                "never finite" if trained["best_value"] is None else trained["best_value"]
            )
        if trained["stopped_early"]:
            why = STOPPED_BEHIND if trained["behind"] else "training: stopped early at step"
            found[f"{of_round}{why}"] = trained["steps"]
        if trained["diverged_at"]:
            found[f"{of_round}training: diverged at step"] = trained["diverged_at"]
    return found


def _drawn(graph: Graph, store: Store) -> dict[str, float]:
    """By round and split: sampled responses with a fault, what became of them, and how far several scorers agree."""
    found = {}
    for number, one in enumerate(graph.rounds, 1):
        for stage in one.drawn:
            for split, values in _summary(store, stage).facts.items():
                for key, value in {**values, **values.get(MEANS, {})}.items():
                    of_scorers = key.endswith((SAME_ORDER, SAME_BEST)) or key in values.get(MEANS, {})
                    shown = of_scorers or (value and key.endswith((DROPPED, REDRAWN)))
                    label = OF_SAMPLES.get(key, key if shown else None)
                    if label is not None:
                        found[f"{f'round {number}, ' if len(graph.rounds) > 1 else ''}{split}: {label}"] = value
        for stage in (each for measure in one.measures for each in _answered(measure)):
            values = _summary(store, stage).facts["answers"]
            found |= {f"{stage.name}: {OF_SAMPLES[key]}": values[key] for key in ("cut_at_limit", "empty")}
    return found


def _answered(measure: Stage) -> list[Stage]:
    return [*measure.inputs.answers.values(), *measure.inputs.start_answers.values()]


def _scores(graph: Graph, store: Store) -> Iterator[RankedScores]:
    """Scores by rank of each round's training sets, by every scorer."""
    for number, one in enumerate(graph.rounds, 1):
        if one.drawn:
            for scorer, mean in _summary(store, one.drawn[-1]).facts["train"][BY_RANK].items():
                yield RankedScores(scorer, scorer == one.partition.config.score, number, tuple(mean))


def _over_rounds(split: str, before: Any, value: float) -> Any:
    """Training sets are others in every round, the held-out ones the same."""
    return value if before is None or split == "heldout" else before + value


def _skipped(graph: Graph, store: Store) -> dict[str, int]:
    """Sets that were left out, by split and reason, over reading, tokenising and partition; what had a warning."""
    data = _summary(store, graph.data)
    found = {(split, reason): count for split, part in data.skipped.items() for reason, count in part.items()}
    warnings: Counter[str] = sum((Counter(part) for part in data.warnings.values()), Counter())
    for number, one in enumerate(graph.rounds):
        of_round: Counter[tuple[str, str]] = Counter()
        for stage in one.stages:
            summary = _summary(store, stage)
            for split, part in summary.skipped.items():
                of_round.update({(split, reason): count for reason, count in part.items()})
            for split, part in summary.warnings.items():
                if number == 0 or split == "train":  # the held-out sets are the same in every round
                    warnings.update(part)
        for (split, reason), count in of_round.items():
            found[split, reason] = _over_rounds(split, found.get((split, reason)), count)
    names = {"train": "", "heldout": "held out: "}
    total = {f"{names[split]}{reason}": count for (split, reason), count in found.items()}
    return total | {f"used, with a warning: {reason}": count for reason, count in warnings.items()}
