"""Draw responses to the prompts of one round (``train``) and to the held-out ones (``heldout``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mpo.cache.stage import Nothing
from mpo.data.batches import batched
from mpo.data.chat import stop_ids
from mpo.data.problems import Problem, ProblemCounts
from mpo.data.split import prompt_key, split_rounds
from mpo.data.store import read_stored_sets, write_sets
from mpo.data.token_rows import usable_prompts
from mpo.policy.devices import join_group
from mpo.policy.pretrained import load_model
from mpo.sample.drawn import DrawnBatches
from mpo.sample.hf import sample_responses
from mpo.stages.context import StageContext
from mpo.stages.models import check_ids, model_source, stage_tokenizer
from mpo.stages.nodes import sample
from mpo.stages.summary import Summary, counts
from mpo.track.progress import ProgressWriter
from mpo.types import Response, ResponseSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Context = StageContext[sample.Config, Nothing, sample.Inputs[Path]]

BATCHES = ".batches.jsonl"
BATCH_SETS = 256


def run(context: Context) -> None:
    """Write each split's prompts with freshly drawn responses. Stopped, it goes on after the last whole batch.

    Raises:
        DataError: more prompts than allowed are too long.
    """
    config = context.config
    how, inputs = config.sample, context.inputs
    path, revision = model_source(inputs.policy)
    tokenizer = stage_tokenizer(inputs.policy, inputs.tokenizer, config.chat_template, config.trust_remote_code)
    stops = sorted({*config.stop_token_ids, *stop_ids(tokenizer)})
    prompts_of = {split: _prompts(context, split, tokenizer) for split in config.splits}
    every_id = (max(prompt, default=0) for asked, _ in prompts_of.values() for _, prompt in asked)
    check_ids(inputs.policy, config.trust_remote_code, max(every_id, default=0), tokenizer)
    model = load_model(path, revision, how.precision, config.trust_remote_code)
    model.to(join_group()).eval()
    facts: dict[str, dict[str, object]] = {}
    skipped: dict[str, dict[str, int]] = {}
    progress = context.progress()
    for number, (split, (asked, found)) in enumerate(prompts_of.items()):
        with DrawnBatches(context.output / f"{split}{BATCHES}", partial(_show, progress, len(asked))) as batches:
            if batches.damaged:
                context.warn(f"{batches.damaged} batches of an earlier attempt are damaged; they are drawn again")
            prompts, seed = [prompt for _, prompt in asked], config.seed * 1000 + number
            drawn = sample_responses(model, tokenizer, prompts, how, stops, seed, batches.drawn, batches.add_batch)
        filled: list[ResponseSet] = []
        for (one, _), responses in zip(asked, drawn, strict=True):
            made = tuple(Response(text=each.text, finished=each.finished) for each in responses)
            filled.append(replace(one, responses=made))
        write_sets(context.output / f"{split}.parquet", filled)
        every = [each for responses in drawn for each in responses]
        lost = Counter(each.left_out for each in every if each.left_out)
        if lost:
            names = ", ".join(name for name, _ in lost.most_common(3))
            what = f"{lost.total()} of {len(every)} responses sampled for {split} have special tokens inside ({names})"
            context.warn(f"{what}, which their texts are without; a tool call may be lost so")
        facts[split] = {
            "sets": len(filled),
            "responses": len(every),
            "with_special_tokens": lost.total(),
            "cut_at_limit": sum(not each.finished for each in every),
            "mean_characters": sum(len(each.text) for each in every) / max(len(every), 1),
        }
        skipped[split] = counts(found.errors)
    progress.close()
    Summary(skipped=skipped, facts=facts).write(context.output)
    for batches_file in context.output.glob(f"*{BATCHES}"):
        batches_file.unlink()


def _prompts(
    context: Context, split: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[tuple[ResponseSet, list[int]]], ProblemCounts]:
    """What is asked of ``split``, this round's share of it, and what was found wrong."""
    config = context.config
    sets = list(read_stored_sets(context.inputs.prompts / f"{split}.parquet"))
    if split == "train" and config.rounds > 1:
        rounds = split_rounds([prompt_key(one.prompt) for one in sets], config.rounds, config.seed_rounds)
        sets = [sets[index] for index in rounds[config.round - 1]]
    asked, found = _rendered(sets, tokenizer, config.max_prompt_tokens)
    _check_skipped(found, len(sets), split, config.max_skipped_share)
    return asked[: config.prompts], found


def _show(progress: ProgressWriter, total: int, done: int) -> None:
    progress.update(done, total, "prompts")


def _rendered(
    sets: Sequence[ResponseSet], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[tuple[ResponseSet, list[int]]], ProblemCounts]:
    """Sets with their prompts' ids, and what was found: those that tokenising would leave out need not be answered
    first."""
    rendered: list[tuple[ResponseSet, list[int]]] = []
    problems: list[Problem] = []
    for group in batched(sets, BATCH_SETS):
        kept, _, prompt_ids = usable_prompts(group, tokenizer, max_tokens, problems)
        rendered += zip(kept, prompt_ids, strict=True)
    found = ProblemCounts()
    for problem in problems:
        found(problem)
    return rendered, found


def _check_skipped(found: ProblemCounts, total: int, split: str, max_share: float) -> None:
    count = found.errors.total()
    if count > max_share * max(1, total) or (count and count == total):
        raise found.unusable_sets(total, split)
