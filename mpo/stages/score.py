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
    """Write each split of ``sets`` again, with the scores of each scorer; the held-out one may have scorers of its own.

    Stopped, it goes on after the last sets whose scores are all there.
    """
    config = context.config
    facts: dict[str, dict[str, float]] = {}
    progress = context.progress()
    for path in sorted(context.inputs.sets.glob("*.parquet")):
        scores: dict[str, list[float]] = {}
        means: dict[str, float] = {}
        for name, node in (config.heldout if path.stem == "heldout" else config.scorers).items():
            scorer = build(node, Scorer, config.allow_targets, "score")  # type: ignore[type-abstract]
            with Journal(context.output / f"{path.stem}.{name}{JOURNAL}") as journal:
                if journal.damaged:
                    context.warn(f"scores of {journal.damaged} groups of sets are damaged; they are scored again")
                scores[name] = _scores(path, scorer, journal)
            means[name] = sum(scores[name]) / max(len(scores[name]), 1)
            progress.update(len(scores[name]), len(scores[name]), "responses", score=means[name])
        sets = write_sets(context.output / path.name, _with_scores(path, scores), stored_vocabulary(path))
        facts[path.stem] = {"sets": sets, **{f"mean_{name}": mean for name, mean in means.items()}}
    progress.close()
    Summary(facts=facts).write(context.output)
    for file in context.output.glob(f"*{JOURNAL}"):
        file.unlink()


def _scores(path: Path, scorer: Scorer, journal: Journal) -> list[float]:
    """Of every response of the file, in order."""
    scores: list[float] = []
    for number, sets in enumerate(batched(read_stored_sets(path), SETS_AT_ONCE)):
        values = journal.kept.get(number)
        if values is None:
            items = [Item(one.prompt, each.message, one.tools) for one in sets for each in one.responses]
            values = checked_scores(scorer, items)
            journal.add(number, values)
        scores.extend(values)
    return scores


def _with_scores(path: Path, scores: dict[str, list[float]]) -> Iterator[ResponseSet]:
    number = 0
    for one in read_stored_sets(path):
        responses = []
        for each in one.responses:
            found = {name: values[number] for name, values in scores.items()}
            responses.append(replace(each, scores={**each.scores, **found}))
            number += 1
        yield replace(one, responses=tuple(responses))
