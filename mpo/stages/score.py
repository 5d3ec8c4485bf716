"""Score sampled responses: the same sets with a score on every response."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mpo.cache.artifacts import write_json
from mpo.config.targets import build
from mpo.data.store import read_stored_sets, write_sets
from mpo.score import FunctionScorer, Scorer
from mpo.stages.context import SUMMARY_FILE, StageContext
from mpo.types import ResponseSet


def run(context: StageContext) -> None:
    """Write each split of ``sets`` again, with scores; the held-out one may have a scorer of its own."""
    config = context.config
    scorer = build(config["scorer"], FunctionScorer, config["allow_targets"], "score")
    judge = scorer
    if config["heldout"] != config["scorer"]:
        judge = build(config["heldout"], FunctionScorer, config["allow_targets"], "score")
    counts, total, progress = {}, 0.0, context.progress()
    for path in sorted(context.inputs["sets"].glob("*.parquet")):
        scores: list[float] = []
        counts[path.stem] = write_sets(
            context.output / path.name, _scored(path, judge if path.stem == "heldout" else scorer, scores)
        )
        total = sum(scores) / max(len(scores), 1)
        progress.update(len(scores), len(scores), "responses", score=total)
    progress.close()
    write_json(context.output / SUMMARY_FILE, {"sets": counts, "mean_score": total})


def _scored(path: Path, scorer: Scorer, scores: list[float]) -> Iterator[ResponseSet]:
    for one in read_stored_sets(path):
        values = scorer(one.prompt, [response.text for response in one.responses])
        scores.extend(values)
        responses = tuple(replace(r, score=value) for r, value in zip(one.responses, values, strict=True))
        yield replace(one, responses=responses)
