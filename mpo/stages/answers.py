"""Answer a benchmark's questions; a turn after the first is asked with the answers before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpo.cache.stage import Nothing
from mpo.config.targets import build
from mpo.data.chat import stop_ids
from mpo.data.problems import Problem
from mpo.data.token_rows import usable_prompts
from mpo.errors import DataError
from mpo.evaluate.questions import GREEDY, Answer, Question, write_answers
from mpo.sample.base import Draw, Drawn, Request, Sampler, SamplingJob, draw_seed
from mpo.sample.canary import Canary
from mpo.sample.checked import Bounds, checked_batches, opened
from mpo.sample.drawn import DrawnBatches, remove_batches
from mpo.sample.texts import Texts
from mpo.stages.context import StageContext
from mpo.stages.models import check_ids, embeddings, model_source, positions, stage_tokenizer
from mpo.stages.nodes import answers
from mpo.stages.replicas import replica
from mpo.stages.summary import Summary
from mpo.types import ResponseSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Context = StageContext[answers.Config, Nothing, answers.Inputs[Path]]

NAME = "answers"
UNASKED = "turns that could not be asked"


def run(context: Context) -> None:
    """Write an answer to each question for each seed. Stopped, it goes on after the last whole batch.

    Several processes share the batches out, and the first one writes what all have drawn.

    Raises:
        ConfigError: the sampler's code raised something.
        DataError: a question cannot be asked; the sampler returned what cannot have been drawn.
    """
    config, inputs = context.config, context.inputs
    sampler = build(config.sampler, Sampler, config.allow_targets, "sampler")  # type: ignore[type-abstract]
    tokenizer = stage_tokenizer(
        inputs.policy, inputs.tokenizer, config.chat_template, config.trust_remote_code, config.template_arguments
    )
    stops = frozenset((*config.stop_token_ids, *stop_ids(tokenizer)))
    seeds = config.seeds[:1] if config.sample.temperature == GREEDY else config.seeds
    asked = [(question, seed) for question in config.questions for seed in seeds]
    prompts = [first for question in config.questions for first in [_first_prompt(question, tokenizer)] * len(seeds)]
    longest = max(_longest_prompt(each, tokenizer, config.sample.max_new_tokens) for each in config.questions)
    longest = min(longest, _room(context, max(map(len, prompts))))
    check_ids(inputs.policy, config.trust_remote_code, max(map(max, prompts)), tokenizer)
    known = None if inputs.canary is None else Canary.read(inputs.canary)
    source, ends = model_source(inputs.policy), tuple(sorted(stops))
    job = SamplingJob(*source, config.trust_remote_code, config.sample, ends, longest, known)
    bounds = Bounds(embeddings(inputs.policy, config.trust_remote_code), config.sample.max_new_tokens, stops)
    batches = checked_batches(sampler, list(map(len, prompts)), config.sample)
    progress = context.progress()
    with replica(context.output, sampler.cards) as mine:
        if mine is None:
            return
        texts = Texts(tokenizer, config.thinking)
        with opened(sampler, job, bounds) as draw, DrawnBatches(context.output, NAME, batches, mine.index) as drawn:
            if drawn.damaged and mine.first:
                context.warn(f"{drawn.damaged} batches of an earlier attempt are damaged; they are drawn again")
            missing = list(drawn.missing)
            left = len(asked) - sum(len(batches[number]) for number in missing)
            for number in filter(mine.takes, missing):
                batch = [_Conversation(*asked[at], prompts[at]) for at in batches[number]]
                unasked = _answer(batch, sampler, job, draw, texts)
                drawn.add(number, [each.drawn for each in batch], unasked)
                done = mine.count_done(NAME, len(batch))
                if mine.first:
                    progress.update(min(left + done, len(asked)), len(asked), NAME)
        if not mine.first:
            return
        mine.wait_for_others()
    texts = Texts(tokenizer, config.thinking)
    with DrawnBatches(context.output, NAME, batches) as drawn:
        given = [_given(asked[at], drawn[at], prompts[at], config, texts) for at in range(len(asked))]
        write_answers(context.output, _for_every_seed(given, config))
        facts = {**texts.facts, **drawn.counts}
    _warn(context, texts, drawn.counts)
    progress.close()
    Summary(facts={NAME: facts}).write(context.output)
    remove_batches(context.output, NAME)


@dataclass
class _Conversation:
    """One question being answered. ``prompt_ids``: of the turn that comes next; None once no further one is asked."""

    question: Question
    seed: int
    prompt_ids: Sequence[int] | None
    said: list[str] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)


def _answer(
    batch: Sequence[_Conversation], sampler: Sampler, job: SamplingJob, draw: Draw, texts: Texts
) -> Counter[str]:
    """Draw every turn of these conversations; how many turns could not be asked."""
    unasked: Counter[str] = Counter()
    for turn in range(max(len(each.question.turns) for each in batch)):
        asking = [each for each in batch if turn < len(each.question.turns)]
        if turn > 0:
            for each in asking:
                each.prompt_ids = _next_prompt(each, texts.tokenizer, job.max_prompt_tokens)
        open_ones = [(each, each.prompt_ids) for each in asking if each.prompt_ids is not None]
        if len(open_ones) < len(asking):
            unasked[UNASKED] += len(asking) - len(open_ones)
        for part in checked_batches(sampler, [len(ids) for _, ids in open_ones], job.decoding):
            requests = [
                Request(ids, [draw_seed(each.seed, 0, NAME, each.question.id, turn)])
                for each, ids in (open_ones[at] for at in part)
            ]
            for at, (found,) in zip(part, draw(requests), strict=True):
                each, ids = open_ones[at]
                each.drawn.append(found)
                each.said.append(texts.response(found, ids).text)
    return unasked


def _prompt(
    one: Question, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, most: int
) -> tuple[list[int], list[Problem]]:
    """Ids of the turn after ``answers`` with all before it; none where it cannot be asked, for the first problem."""
    problems: list[Problem] = []
    asked = ResponseSet(one.id, one.conversation(answers), ())
    _, _, ids = usable_prompts([asked], tokenizer, most, problems)
    return (ids[0] if ids else []), [each for each in problems if each.severity == "error"]


def _first_prompt(one: Question, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids, problems = _prompt(one, (), tokenizer, 10**9)
    if problems:
        remedy = "choose another model.chat_template, or leave the benchmark out"
        raise DataError(problems[0].message, f"question {one.id}", remedy)
    return ids


def _next_prompt(each: _Conversation, tokenizer: PreTrainedTokenizerBase, most: int) -> list[int] | None:
    if each.prompt_ids is None:
        return None
    return _prompt(each.question, each.said, tokenizer, most)[0] or None


def _longest_prompt(one: Question, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> int:
    """Most tokens that its last turn may have before it, were every answer as long as allowed."""
    before = len(one.turns) - 1
    ids, problems = _prompt(one, ["-"] * before, tokenizer, 10**9)
    if problems:
        remedy = "choose another model.chat_template, or leave the benchmark out"
        raise DataError(problems[0].message, f"question {one.id}, turn {before + 1}", remedy)
    return len(ids) + before * max_new_tokens


def _room(context: Context, longest: int) -> int:
    """Most tokens of a prompt that leave room for an answer; raises DataError where a first turn of ``longest`` has
    none. A later turn without it is not asked, and counted."""
    config = context.config
    most, new = positions(context.inputs.policy, config.trust_remote_code), config.sample.max_new_tokens
    if most is None:
        return 10**9
    if longest + new > most:
        what = f"a question of {longest} tokens and an answer of {new} pass the model's {most} positions"
        raise DataError(what, NAME, "lower the measure's max_new_tokens")
    return most - new


def _given(
    asked: tuple[Question, int], drawn: Sequence[Drawn], prompt_ids: Sequence[int], config: answers.Config, texts: Texts
) -> Answer:
    """The answer as text, counted. Whether a template opens a thought, the first turn's prompt tells for all."""
    question, seed = asked
    said = [text.text for each in drawn for text in texts.responses_of([each], prompt_ids)]
    unasked = [""] * (len(question.turns) - len(said))
    finished = not unasked and all(each.finished for each in drawn)
    return Answer(question.id, (*said, *unasked), config.sample.temperature, seed, finished)


def _for_every_seed(given: Sequence[Answer], config: answers.Config) -> Iterator[Answer]:
    """What was drawn greedily stands for every seed."""
    for each in given:
        for seed in config.seeds if config.sample.temperature == GREEDY else [each.seed]:
            yield replace(each, seed=seed)


def _warn(context: Context, texts: Texts, counts: Counter[str]) -> None:
    limit = context.config.sample.max_new_tokens
    found = [
        (texts.cut, f"are cut at {limit} tokens"),
        (texts.empty, "are empty"),
        (counts[UNASKED], "could not be asked after the answer before"),
        (texts.lost.total(), "have special tokens inside, which their texts are without"),
        (texts.unparted, "have a thought that counts as their text: set model.thinking"),
    ]
    said = "; ".join(f"{count} {what}" for count, what in found if count)
    if said:
        context.warn(f"of {texts.responses + counts[UNASKED]} turns, {said}")
