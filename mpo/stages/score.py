"""Score sampled responses: the same sets with a score on every response."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mpo.cache.journal import Journal
from mpo.cache.stage import Nothing
from mpo.config.targets import build
from mpo.data.batches import batched
from mpo.data.store import read_stored_sets, stored_vocabulary, write_sets
from mpo.score.base import Item, Scorer
from mpo.score.checked import checked_scores
from mpo.stages.context import StageContext
from mpo.stages.nodes import score
from mpo.stages.summary import Summary
from mpo.types import ResponseSet

SETS_AT_ONCE = 512
"""Sets whose responses are ordered by length together, and scored again after a stop in their midst."""
JOURNAL = ".scores.jsonl"


def run(context: StageContext[score.Config, Nothing, score.Inputs[Path]]) -> None:
    """Write each split of ``sets`` again, with scores; the held-out one may have a scorer of its own.

    Stopped, it goes on after the last sets whose scores are all there.
    """
    config = context.config
    scorer = _scorer(config.scorer, config.allow_targets)
    judge = scorer if config.heldout == config.scorer else _scorer(config.heldout, config.allow_targets)
    facts: dict[str, dict[str, float]] = {}
    progress = context.progress()
    for path in sorted(context.inputs.sets.glob("*.parquet")):
        scores: list[float] = []
        chosen = judge if path.stem == "heldout" else scorer
        with Journal(context.output / f"{path.stem}{JOURNAL}") as journal:
            if journal.damaged:
                context.warn(f"scores of {journal.damaged} groups of sets are damaged; they are scored again")
            scored = _scored(path, chosen, journal, scores)
            sets = write_sets(context.output / path.name, scored, stored_vocabulary(path))
        mean = sum(scores) / max(len(scores), 1)
        facts[path.stem] = {"sets": sets, "mean_score": mean}
        progress.update(len(scores), len(scores), "responses", score=mean)
    progress.close()
    Summary(facts=facts).write(context.output)
    for file in context.output.glob(f"*{JOURNAL}"):
        file.unlink()


def _scorer(node: dict[str, object], allow: list[str]) -> Scorer:
    return build(node, Scorer, allow, "score")  # type: ignore[type-abstract]


def _scored(path: Path, scorer: Scorer, journal: Journal, scores: list[float]) -> Iterator[ResponseSet]:
    for number, sets in enumerate(batched(read_stored_sets(path), SETS_AT_ONCE)):
        values = journal.kept.get(number)
        if values is None:
            items = [Item(one.prompt, each.message, one.tools) for one in sets for each in one.responses]
            values = checked_scores(scorer, items)
            journal.add(number, values)
        scores.extend(values)
        rest = iter(values)
        for one in sets:
            yield replace(one, responses=tuple(replace(each, score=next(rest)) for each in one.responses))
