"""Where the time of each round went, how many tokens it drew, and some of what it drew. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from mpo.cache.artifacts import Store
from mpo.cache.stage import Stage
from mpo.data.store import read_stored_sets
from mpo.pipeline.graph import Graph
from mpo.report.records import RoundRow, ScoredResponse
from mpo.stages.summary import Summary

KINDS = {"sample": "sampling", "score": "scoring", "embed": "embedding", "reference": "reference", "train": "training"}
"""What stages of a task are called; the others prepare these."""
SHOWN_SETS = 2
"""Sets of a round whose responses a report shows."""
EVALUATING, PREPARING = "evaluating", "preparing"


def round_rows(graph: Graph, store: Store) -> Iterator[RoundRow]:
    """A row for each round of several: seconds that its stages took when they were built, by kind."""
    if len(graph.rounds) == 1:
        return
    stages = list(graph.stages(store))
    for number, one in enumerate(graph.rounds, 1):
        prefix = f"round{number}/"
        seconds: Counter[str] = Counter()
        for stage in stages:
            if stage.name.startswith(prefix):
                seconds[_kind(stage, prefix)] += store.manifest(stage)["usage"]["seconds"]
        drawn = Summary.read(store.path(one.drawn[0])).facts["train"] if one.drawn else {}
        yield RoundRow(number, dict(seconds), drawn.get("sets", 0), drawn.get("responses", 0), drawn.get("tokens", 0))


def scored_responses(graph: Graph, store: Store) -> Iterator[ScoredResponse]:
    """All responses of the first few training sets of each round that draws, the best score first."""
    for number, one in enumerate(graph.rounds, 1):
        if not one.drawn:
            continue
        name = one.partition.config.score
        for each in islice(read_stored_sets(store.path(one.drawn[-1]) / "train.parquet"), SHOWN_SETS):
            for response in sorted(each.responses, key=lambda response: -(response.score_by(name) or 0.0)):
                yield ScoredResponse(number, each.prompt[-1].content, response.text, dict(response.scores))


def _kind(stage: Stage, prefix: str) -> str:
    if stage.name.startswith(f"{prefix}evaluate/"):
        return EVALUATING
    return KINDS.get(stage.task, PREPARING)
