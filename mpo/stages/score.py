"""Score sampled responses: the same sets with a score on every response."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpo.cache.journal import Journal, remove_journal
from mpo.config.schema import ThinkingConfig
from mpo.config.targets import build
from mpo.data.batches import batched
from mpo.data.store import read_stored_sets, stored_vocabulary, write_sets
from mpo.score.agreement import agreements
from mpo.score.base import Item, Scorer, shown
from mpo.score.checked import check_spread, close_scorer, scores_of_sets
from mpo.score.ranks import mean_by_rank
from mpo.stages.context import StageContext
from mpo.stages.nodes import score
from mpo.stages.nodes.score import BY_RANK, MEANS
from mpo.stages.replicas import Replica, replica
from mpo.stages.summary import Summary
from mpo.track.progress import ProgressWriter
from mpo.types import ResponseSet

SETS_AT_ONCE = 32
"""Sets whose responses are ordered by length together, and scored again after a stop in their midst."""

Context = StageContext[score.Config, score.Settings, score.Inputs[Path]]


def run(context: Context) -> None:
    """Write each split of ``sets`` again, with the scores of each scorer; the held-out one may have scorers of its own.

    Stopped, it goes on after the last sets whose scores are all there. Several processes share the sets out, and the
    first one writes what all have scored. One scorer at a time holds its model, and loads it once for all the splits
    that it scores.

    Raises:
        DataError: a scorer returned something that is no finite number, or, if its scores are continuous, one for all.
    """
    paths = sorted(context.inputs.sets.glob("*.parquet"))
    progress = context.progress()
    scorers = _by_scorer(context, paths)
    with replica(context.output) as mine:
        if mine is None:
            return
        for name, scorer, splits in scorers:
            try:
                for path in splits:
                    _score(context, path, name, scorer, progress, mine)
            finally:
                close_scorer(scorer)
        if not mine.first:
            return
        mine.wait_for_others()
    scores: dict[tuple[str, str], list[float]] = {}
    warnings: dict[str, dict[str, int]] = {path.stem: {} for path in paths}
    found_means: dict[str, dict[str, float]] = {path.stem: {} for path in paths}
    for name, scorer, splits in scorers:
        for path in splits:
            values, found, means_of_scorer = _scored(context, path, name)
            if same := check_spread(scorer, name, values, _texts_differ(path, context.config.thinking), path.stem):
                context.warn(same)
            scores[path.stem, name] = values
            warnings[path.stem].update({f"{name}: {reason}": count for reason, count in found.items()})
            found_means[path.stem].update({f"{name}: {what}": mean for what, mean in means_of_scorer.items()})
    facts: dict[str, dict[str, Any]] = {}
    for path in paths:
        of_split = {name: scores[path.stem, name] for name in _scorers(context.config, path)}
        sets = write_sets(context.output / path.name, _with_scores(path, of_split), stored_vocabulary(path))
        means = {f"mean_{name}": sum(values) / max(len(values), 1) for name, values in of_split.items()}
        sizes = [len(one.responses) for one in read_stored_sets(path)]
        by_rank = {name: mean_by_rank(values, sizes) for name, values in of_split.items()}
        met = {MEANS: found_means[path.stem]} if found_means[path.stem] else {}
        facts[path.stem] = {"sets": sets, **means, **agreements(of_split, sizes), BY_RANK: by_rank, **met}
    progress.close()
    Summary(warnings={split: found for split, found in warnings.items() if found}, facts=facts).write(context.output)
    for path in paths:
        for name in _scorers(context.config, path):
            remove_journal(context.output, _journal_name(path, name))


def _scorers(config: score.Config | score.Settings, path: Path) -> dict[str, dict[str, Any]]:
    return config.heldout if path.stem == "heldout" else config.scorers


def _by_scorer(context: Context, paths: list[Path]) -> list[tuple[str, Scorer, list[Path]]]:
    """Each scorer with its name and the splits that it scores."""
    config = context.config
    found: dict[tuple[str, str], tuple[str, dict[str, Any], list[Path]]] = {}
    for path in paths:
        settings = _scorers(context.settings, path)
        for name, kept in _scorers(config, path).items():
            node = {**kept, **settings.get(name, {})}
            found.setdefault((name, json.dumps(node, sort_keys=True)), (name, node, []))[2].append(path)
    return [
        (name, build(node, Scorer, config.allow_targets, "score"), splits)  # type: ignore[type-abstract]
        for name, node, splits in found.values()
    ]


def _journal_name(path: Path, name: str) -> str:
    return f"{path.stem}.{name}.scores"


def _score(context: Context, path: Path, name: str, scorer: Scorer, progress: ProgressWriter, mine: Replica) -> None:
    """Score this replica's share of the file's sets."""
    total = sum(len(one.responses) for one in read_stored_sets(path))
    left = 0
    with Journal(context.output, _journal_name(path, name), mine.index) as journal:
        if journal.damaged and mine.first:
            context.warn(f"scores of {journal.damaged} groups of sets are damaged; they are scored again")
        for number, sets in enumerate(batched(read_stored_sets(path), SETS_AT_ONCE)):
            if number in journal.kept:
                left += len(journal.kept[number]["scores"])
            elif mine.takes(number):
                items = [
                    [Item(one.prompt, shown(each, context.config.thinking), one.tools) for each in one.responses]
                    for one in sets
                ]
                scores = scores_of_sets(scorer, items)
                found = {"warnings": scorer.take_warnings(), "means": scorer.take_means()}
                journal.add(number, {"scores": scores, **found})
                done = mine.count_done(_journal_name(path, name), len(scores))
                if mine.first:
                    mean = sum(scores) / max(len(scores), 1)
                    progress.update(min(left + done, total), total, f"responses of {path.stem}", **{name: mean})


def _scored(context: Context, path: Path, name: str) -> tuple[list[float], dict[str, int], dict[str, float]]:
    """What all replicas have found: the score of every response of the file, in order; how many of them have a warning,
    by reason; means of what else the scorer has met."""
    scores: list[float] = []
    warnings: Counter[str] = Counter()
    sums: dict[str, float] = defaultdict(float)
    numbers: Counter[str] = Counter()
    with Journal(context.output, _journal_name(path, name)) as journal:
        for number in range(len(journal.kept)):
            scores.extend(journal.kept[number]["scores"])
            warnings.update(journal.kept[number]["warnings"])
            for what, (total, count) in journal.kept[number]["means"].items():
                sums[what] += total
                numbers[what] += count
    for reason, count in warnings.items():
        context.warn(f"{name}, {path.stem}: {reason}: {count} of {len(scores)} responses")
    return scores, dict(warnings), {what: sums[what] / count for what, count in numbers.items() if count}


def _texts_differ(path: Path, thinking: ThinkingConfig) -> bool:
    texts: set[str] = set()
    for one in read_stored_sets(path):
        texts.update(shown(each, thinking).content for each in one.responses)
        if len(texts) > 1:
            return True
    return False


def _with_scores(path: Path, scores: dict[str, list[float]]) -> Iterator[ResponseSet]:
    number = 0
    for one in read_stored_sets(path):
        responses = []
        for each in one.responses:
            found = {name: values[number] for name, values in scores.items()}
            responses.append(replace(each, scores={**each.scores, **found}))
            number += 1
        yield replace(one, responses=tuple(responses))
