"""Render and tokenise response sets: ``train/`` and ``heldout/``, memory-mapped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

from mpo.cache.artifacts import write_json
from mpo.config.schema import SftResponses
from mpo.data.problems import ProblemCounts
from mpo.data.store import count_stored_sets, read_stored_sets
from mpo.data.tokens import TokenizedSets, tokenize_sets
from mpo.stages.context import SUMMARY_FILE, StageContext
from mpo.stages.models import check_ids, stage_tokenizer
from mpo.types import ResponseSet

WORTH_WORKERS = 64 * 2**20
"""Bytes of stored (compressed) sets above which several tokenising processes gain more than their start costs."""


def run(context: StageContext) -> None:
    """Tokenise every split of the input sets.

    Raises:
        DataError: more sets than allowed cannot be tokenised.
    """
    config = context.config
    tokenizer = stage_tokenizer(context)
    flatten = SftResponses[config["flatten"]] if config["flatten"] else None
    facts, progress = {}, context.progress()
    for split in ("train", "heldout"):
        path = context.inputs["sets"] / f"{split}.parquet"
        if not path.exists() or (split == "heldout" and count_stored_sets(path) == 0):
            continue
        counts = ProblemCounts()
        sets: Iterable[ResponseSet] = read_stored_sets(path)
        stats = tokenize_sets(
            sets if flatten is None else flattened(sets, flatten),
            tokenizer,
            max_prompt_tokens=config["max_prompt_tokens"],
            max_tokens=config["max_tokens"],
            out=context.output / split,
            processes=len(os.sched_getaffinity(0)) if path.stat().st_size > WORTH_WORKERS else 1,
            on_problem=counts,
        )
        skipped = sum(counts.errors.values())
        if skipped > config["max_skipped_share"] * max(1, skipped + stats.sets):
            raise counts.unusable_sets(skipped + stats.sets, split)
        check_ids(context, TokenizedSets.load(context.output / split).largest_id, tokenizer)
        facts[split] = {
            **asdict(stats),
            "skipped": dict(counts.errors),
            "warnings": dict(counts.warnings),
            "problems": [str(problem) for problem in counts.first.values()],
        }
        progress.update(stats.sets, stats.sets, "sets")
    progress.close()
    write_json(context.output / SUMMARY_FILE, facts)


def flattened(sets: Iterable[ResponseSet], which: SftResponses) -> Iterator[ResponseSet]:
    """Sets of one response each, for supervised fine-tuning: the best of each set, or every one."""
    for one in sets:
        if which is SftResponses.all:
            for number, response in enumerate(one.responses):
                yield replace(one, id=f"{one.id}#{number}", responses=(response,))
        elif one.responses:
            best = max(one.responses, key=lambda r: r.score if r.score is not None else float("-inf"))
            yield replace(one, responses=(best,))
