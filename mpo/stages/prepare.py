"""Render and tokenise response sets: ``train/`` and ``heldout/``, memory-mapped."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mpo.cache.stage import Nothing
from mpo.config.schema import SftResponses
from mpo.data.chat import writes_date
from mpo.data.problems import ProblemCounts
from mpo.data.store import count_stored_sets, read_stored_sets, stored_vocabulary
from mpo.data.tokenizer import vocabulary_digest
from mpo.data.tokens import TokenizedSets, tokenize_sets
from mpo.stages.context import StageContext
from mpo.stages.models import DATED, check_ids, stage_tokenizer
from mpo.stages.nodes import prepare
from mpo.stages.summary import Summary, counts
from mpo.types import ResponseSet

WORTH_WORKERS = 64 * 2**20
"""Bytes of stored (compressed) sets above which several tokenising processes gain more than their start costs."""


def run(context: StageContext[prepare.Config, Nothing, prepare.Inputs[Path]]) -> None:
    """Tokenise every split of the input sets. Tokens that were drawn with this tokenizer are kept as they were drawn.

    Raises:
        DataError: more sets than allowed cannot be tokenised.
    """
    config = context.config
    inputs, flatten = context.inputs, config.flatten
    tokenizer = stage_tokenizer(
        inputs.policy, inputs.tokenizer, config.chat_template, config.trust_remote_code, config.template_arguments
    )
    if writes_date(tokenizer):
        context.warn(DATED)
    vocabulary = vocabulary_digest(tokenizer)
    skipped: dict[str, dict[str, int]] = {}
    warnings: dict[str, dict[str, int]] = {}
    facts: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    progress = context.progress()
    for split in ("train", "heldout"):
        path = inputs.sets / f"{split}.parquet"
        if not path.exists() or (split == "heldout" and count_stored_sets(path) == 0):
            continue
        found = ProblemCounts()
        sets: Iterable[ResponseSet] = read_stored_sets(path)
        drawn_elsewhere: Counter[str] = Counter()
        if stored_vocabulary(path) != vocabulary:
            sets = _as_texts(sets, drawn_elsewhere)
        stats = tokenize_sets(
            sets if flatten is None else flattened(sets, flatten, config.score),
            tokenizer,
            max_prompt_tokens=config.max_prompt_tokens,
            max_tokens=config.max_tokens,
            out=context.output / split,
            processes=len(os.sched_getaffinity(0)) if path.stat().st_size > WORTH_WORKERS else 1,
            on_problem=found,
            marks=None if config.marks is None else (config.marks[0], config.marks[1]),
        )
        if drawn_elsewhere.total():
            what = f"{drawn_elsewhere.total()} responses of {split} were drawn with another tokenizer"
            context.warn(f"{what}; their texts are tokenised anew")
        unusable = found.errors.total()
        if unusable > config.max_skipped_share * max(1, unusable + stats.sets):
            raise found.unusable_sets(unusable + stats.sets, split)
        largest = TokenizedSets.load(context.output / split).largest_id
        check_ids(inputs.policy, config.trust_remote_code, largest, tokenizer)
        skipped[split], warnings[split] = counts(found.errors), counts(found.warnings)
        unsaid = {"skipped_sets"} | (set() if stats.uncounted_tokens else {"uncounted_tokens"})
        facts[split] = {name: value for name, value in asdict(stats).items() if name not in unsaid}
        problems += [str(problem) for problem in found.first.values()]
        progress.update(stats.sets, stats.sets, "sets")
    progress.close()
    Summary(skipped, warnings, facts, problems).write(context.output)


def _as_texts(sets: Iterable[ResponseSet], found: Counter[str]) -> Iterator[ResponseSet]:
    """The sets without drawn tokens; ``found`` counts the responses that had some."""
    for one in sets:
        drawn = sum(each.token_ids is not None for each in one.responses)
        found["responses"] += drawn
        texts = (replace(each, token_ids=None, token_logps=None) for each in one.responses)
        yield replace(one, responses=tuple(texts)) if drawn else one


def flattened(sets: Iterable[ResponseSet], which: SftResponses, score: str) -> Iterator[ResponseSet]:
    """Sets of one response each, for supervised fine-tuning: the best of each set by ``score``, or every one."""
    for one in sets:
        if which is SftResponses.all:
            for number, response in enumerate(one.responses):
                yield replace(one, id=f"{one.id}#{number}", responses=(response,))
        elif one.responses:
            found = [each.score_by(score) for each in one.responses]
            scores = [-math.inf if value is None else value for value in found]
            yield replace(one, responses=(one.responses[scores.index(max(scores))],))
