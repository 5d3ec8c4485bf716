"""Score sampled responses: the same sets with a score on every response."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpo.cache.journal import Journal
from mpo.cache.stage import Nothing
from mpo.config.targets import build
from mpo.data.batches import batched
from mpo.data.store import read_stored_sets, stored_vocabulary, write_sets
from mpo.score.base import Item, Scorer
from mpo.score.checked import check_spread, close_scorer, scores_of_sets
from mpo.stages.context import StageContext
from mpo.stages.nodes import score
from mpo.stages.summary import Summary
from mpo.types import ResponseSet

SETS_AT_ONCE = 512
"""Sets whose responses are ordered by length together, and scored again after a stop in their midst."""
JOURNAL = ".scores.jsonl"

Context = StageContext[score.Config, Nothing, score.Inputs[Path]]


def run(context: Context) -> None:
    """Write each split of ``sets`` again, with the scores of each scorer; the held-out one may have scorers of its own.

    Stopped, it goes on after the last sets whose scores are all there. One scorer at a time holds its model, and loads
    it once for all the splits that it scores.

    Raises:
        DataError: a scorer returned something that is no finite number, or, if its scores are continuous, one for all.
    """
    paths = sorted(context.inputs.sets.glob("*.parquet"))
    scores: dict[tuple[str, str], list[float]] = {}
    warnings: dict[str, dict[str, int]] = {path.stem: {} for path in paths}
    progress = context.progress()
    for name, node, splits in _by_scorer(context.config, paths):
        scorer = build(node, Scorer, context.config.allow_targets, "score")  # type: ignore[type-abstract]
        try:
            for path in splits:
                values, found = _scores(context, path, name, scorer)
                scores[path.stem, name] = values
                warnings[path.stem].update({f"{name}: {reason}": count for reason, count in found.items()})
                progress.update(len(values), len(values), "responses", score=sum(values) / max(len(values), 1))
        finally:
            close_scorer(scorer)
    facts: dict[str, dict[str, float]] = {}
    for path in paths:
        of_split = {name: scores[path.stem, name] for name in _scorers(context.config, path)}
        sets = write_sets(context.output / path.name, _with_scores(path, of_split), stored_vocabulary(path))
        means = {f"mean_{name}": sum(values) / max(len(values), 1) for name, values in of_split.items()}
        facts[path.stem] = {"sets": sets, **means}
    progress.close()
    Summary(warnings={split: found for split, found in warnings.items() if found}, facts=facts).write(context.output)
    for file in context.output.glob(f"*{JOURNAL}"):
        file.unlink()


def _scorers(config: score.Config, path: Path) -> dict[str, dict[str, Any]]:
    return config.heldout if path.stem == "heldout" else config.scorers


def _by_scorer(config: score.Config, paths: list[Path]) -> list[tuple[str, dict[str, Any], list[Path]]]:
    """Each scorer with its name, its node and the splits that it scores."""
    found: dict[tuple[str, str], tuple[str, dict[str, Any], list[Path]]] = {}
    for path in paths:
        for name, node in _scorers(config, path).items():
            found.setdefault((name, json.dumps(node, sort_keys=True)), (name, node, []))[2].append(path)
    return list(found.values())


def _scores(context: Context, path: Path, name: str, scorer: Scorer) -> tuple[list[float], dict[str, int]]:
    """Of every response of the file, in order; how many of them have a warning, by reason."""
    scores: list[float] = []
    warnings: Counter[str] = Counter()
    texts: set[str] = set()
    with Journal(context.output / f"{path.stem}.{name}{JOURNAL}") as journal:
        if journal.damaged:
            context.warn(f"scores of {journal.damaged} groups of sets are damaged; they are scored again")
        for number, sets in enumerate(batched(read_stored_sets(path), SETS_AT_ONCE)):
            kept = journal.kept.get(number)
            if kept is None:
                items = [[Item(one.prompt, each.message, one.tools) for each in one.responses] for one in sets]
                kept = {"scores": scores_of_sets(scorer, items), "warnings": scorer.take_warnings()}
                journal.add(number, kept)
            scores.extend(kept["scores"])
            warnings.update(kept["warnings"])
            if len(texts) < 2:
                texts.update(each.text for one in sets for each in one.responses)
    for reason, count in warnings.items():
        context.warn(f"{name}, {path.stem}: {reason}: {count} of {len(scores)} responses")
    if same := check_spread(scorer, name, scores, len(texts) > 1, path.stem):
        context.warn(same)
    return scores, dict(warnings)


def _with_scores(path: Path, scores: dict[str, list[float]]) -> Iterator[ResponseSet]:
    number = 0
    for one in read_stored_sets(path):
        responses = []
        for each in one.responses:
            found = {name: values[number] for name, values in scores.items()}
            responses.append(replace(each, scores={**each.scores, **found}))
            number += 1
        yield replace(one, responses=tuple(responses))
