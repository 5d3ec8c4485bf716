"""Draw responses to the prompts of one round (``train``) and to the held-out ones (``heldout``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpo.cache.stage import Nothing
from mpo.config.targets import build
from mpo.data.batches import batched
from mpo.data.chat import stop_ids, writes_date
from mpo.data.problems import Problem, ProblemCounts
from mpo.data.split import prompt_key, split_rounds
from mpo.data.store import read_stored_sets, write_sets
from mpo.data.token_rows import usable_prompts
from mpo.data.tokenizer import vocabulary_digest
from mpo.errors import DataError
from mpo.sample.base import Draw, Sampler, SamplingJob, draw_seed
from mpo.sample.canary import Canary
from mpo.sample.checked import Bounds, checked_batches, opened
from mpo.sample.drawn import DrawnBatches, remove_batches
from mpo.sample.texts import Texts
from mpo.sample.unwanted import Wanted, as_drawn, draw_wanted
from mpo.stages.context import StageContext
from mpo.stages.models import DATED, check_ids, embeddings, model_source, stage_tokenizer
from mpo.stages.nodes import sample
from mpo.stages.replicas import Replica, replica
from mpo.stages.summary import Summary, counts
from mpo.track.progress import ProgressWriter
from mpo.types import ResponseSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Context = StageContext[sample.Config, Nothing, sample.Inputs[Path]]

BATCH_SETS = 256
NONE_LEFT = "every response was dropped"
Asked = list[tuple[ResponseSet, list[int]]]
"""Sets with the ids of their prompts."""


def run(context: Context) -> None:
    """Write each split's prompts with freshly drawn responses. Stopped, it goes on after the last whole batch.

    Several processes share the batches out, and the first one writes what all have drawn.

    Raises:
        ConfigError: the sampler's code raised something.
        DataError: more prompts than allowed are too long; the sampler returned what cannot have been drawn.
    """
    config = context.config
    how, inputs = config.sample, context.inputs
    sampler = build(config.sampler, Sampler, config.allow_targets, "sampler")  # type: ignore[type-abstract]
    tokenizer = stage_tokenizer(
        inputs.policy, inputs.tokenizer, config.chat_template, config.trust_remote_code, config.template_arguments
    )
    stops = frozenset((*config.stop_token_ids, *stop_ids(tokenizer)))
    known = None if inputs.canary is None else Canary.read(inputs.canary)
    source, ends = model_source(inputs.policy), tuple(sorted(stops))
    job = SamplingJob(*source, config.trust_remote_code, how, ends, config.max_prompt_tokens, known)
    prompts_of = {split: _prompts(context, split, tokenizer) for split in config.splits}
    every_id = (max(prompt, default=0) for asked, _ in prompts_of.values() for _, prompt in asked)
    check_ids(inputs.policy, config.trust_remote_code, max(every_id, default=0), tokenizer)
    vocabulary, progress = vocabulary_digest(tokenizer), context.progress()
    bounds = Bounds(embeddings(inputs.policy, config.trust_remote_code), how.max_new_tokens, stops)
    batches_of = {
        split: checked_batches(sampler, [len(prompt) for _, prompt in asked], how)
        for split, (asked, _) in prompts_of.items()
    }
    with replica(context.output, sampler.cards) as mine:
        if mine is None:
            return
        texts = Texts(tokenizer, config.thinking)
        with opened(sampler, job, bounds) as draw:
            for split, (asked, _) in prompts_of.items():
                with DrawnBatches(context.output, split, batches_of[split], mine.index) as drawn:
                    if drawn.damaged and mine.first:
                        context.warn(f"{drawn.damaged} batches of an earlier attempt are damaged; they are drawn again")
                    _draw_missing(config, split, asked, batches_of[split], drawn, draw, progress, mine, texts)
        if not mine.first:
            return
        mine.wait_for_others()
    if writes_date(tokenizer):
        context.warn(DATED)
    facts: dict[str, dict[str, Any]] = {}
    skipped: dict[str, dict[str, int]] = {}
    unparted = responses = 0
    for split, (asked, found) in prompts_of.items():
        texts = Texts(tokenizer, config.thinking)
        with DrawnBatches(context.output, split, batches_of[split]) as drawn:
            with_responses = _with_responses(asked, drawn, texts)
            written = write_sets(context.output / f"{split}.parquet", with_responses, vocabulary)
            facts[split] = {"sets": written, **texts.facts, **drawn.counts}
        if texts.lost:
            names = ", ".join(name for name, _ in texts.lost.most_common(3))
            count = f"{texts.lost.total()} of {texts.responses}"
            what = f"{count} responses sampled for {split} have special tokens inside ({names})"
            context.warn(f"{what}, which their texts are without; a tool call may be lost so")
        if config.thinking.end is not None and texts.responses > texts.without_thoughts and not texts.thoughts:
            marks = f"{config.thinking.start} and {config.thinking.end}"
            context.warn(f"no response sampled for {split} has a thought between {marks}, the marks of model.thinking")
        unparted, responses = unparted + texts.unparted, responses + texts.responses
        if dropped := ", ".join(f"{count} {reason}" for reason, count in sorted(drawn.counts.items())):
            context.warn(f"responses sampled for {split}: {dropped}")
        if asked and not written:
            what = f"every response to all {len(asked)} prompts of {split} was dropped ({dropped})"
            raise DataError(
                what, "sample", "keep them: sample.empty, sample.cut and sample.duplicates say what is dropped"
            )
        skipped[split] = counts(found.errors)
        if written < len(asked):
            skipped[split][NONE_LEFT] = len(asked) - written
    if unparted:
        what = f"{unparted} of {responses} responses have a thought that is scored and trained on as their text"
        context.warn(f"{what}: set model.thinking, or template_arguments.enable_thinking=false")
    progress.close()
    Summary(skipped=skipped, facts=facts).write(context.output)
    for split in prompts_of:
        remove_batches(context.output, split)


def _draw_missing(
    config: sample.Config,
    split: str,
    asked: Asked,
    batches: Sequence[Sequence[int]],
    drawn: DrawnBatches,
    draw: Draw,
    progress: ProgressWriter,
    mine: Replica,
    texts: Texts,
) -> None:
    """Draw this replica's share of the batches that no earlier attempt has left."""
    how = config.sample if split == "train" else as_drawn(config.sample)

    def wanted(position: int) -> Wanted:
        one, prompt = asked[position]
        return Wanted(prompt, lambda number: draw_seed(config.seed, config.round, split, one.id, number))

    missing = list(drawn.missing)
    left = len(asked) - sum(len(batches[number]) for number in missing)
    for number in filter(mine.takes, missing):
        responses, counted = draw_wanted(draw, [wanted(at) for at in batches[number]], how, texts.response)
        drawn.add(number, responses, counted)
        done = mine.count_done(split, len(batches[number]))
        if mine.first:
            progress.update(min(left + done, len(asked)), len(asked), "prompts")


def _with_responses(asked: Asked, drawn: DrawnBatches, texts: Texts) -> Iterator[ResponseSet]:
    """Each set with its responses, if there are any."""
    for position, (one, prompt) in enumerate(asked):
        responses = texts.responses_of(drawn[position], prompt)
        if responses:
            yield replace(one, responses=responses)


def _prompts(context: Context, split: str, tokenizer: PreTrainedTokenizerBase) -> tuple[Asked, ProblemCounts]:
    """What is asked of ``split``, this round's share of it, and what was found wrong."""
    config = context.config
    sets = list(read_stored_sets(context.inputs.prompts / f"{split}.parquet"))
    if split == "train" and config.rounds > 1:
        rounds = split_rounds([prompt_key(one.prompt) for one in sets], config.rounds, config.seed_rounds)
        sets = [sets[index] for index in rounds[config.round - 1]]
    asked, found = _rendered(sets, tokenizer, config.max_prompt_tokens)
    _check_skipped(found, len(sets), split, config.max_skipped_share)
    return asked[: config.prompts], found


def _rendered(
    sets: Sequence[ResponseSet], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[Asked, ProblemCounts]:
    """Sets with their prompts' ids, and what was found: those that tokenising would leave out need not be answered
    first."""
    rendered: Asked = []
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
