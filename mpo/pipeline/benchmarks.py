"""The stages that answer a benchmark's questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from mpo.cache.stage import Nothing, Stage
from mpo.config.schema import RunConfig
from mpo.errors import ConfigError
from mpo.evaluate.benchmark import Benchmark
from mpo.evaluate.questions import Decoding, Question
from mpo.pipeline.graph import Policy
from mpo.pipeline.sampling import canary_stage
from mpo.pipeline.stage_configs import allowed, chat_template, side_by_side, tokenizer
from mpo.sample.base import Sampler
from mpo.sample.unwanted import as_drawn
from mpo.stages.nodes import answers


def answer_stages(config: RunConfig, name: str, data: Stage, policy: Policy, benchmark: Benchmark) -> dict[str, Stage]:
    """Answers of ``policy``, a stage for each temperature, by that.

    Args:
        name: begins theirs.
        data: what has a prompt to look at an engine's weights with.
    """
    return {
        f"{how.temperature:g}": _stage(config, f"{name}@{how.temperature:g}", data, policy, how, questions)
        for how, questions in _by_decoding(benchmark.decodings(), benchmark.questions()).items()
    }


def _by_decoding(decodings: list[Decoding], questions: Iterable[Question]) -> dict[Decoding, list[Question]]:
    """What is answered how. A question with a temperature of its own is answered at that, once."""
    found: dict[Decoding, list[Question]] = defaultdict(list)
    for one in questions:
        if one.temperature is not None:
            found[replace(decodings[0], temperature=one.temperature)].append(one)
            continue
        for how in dict.fromkeys(decodings):
            found[how].append(one)
    at = [f"{how.temperature:g}" for how in found]
    for temperature in at:
        if at.count(temperature) > 1:
            what = f"questions are answered at temperature {temperature} in two ways"
            raise ConfigError(what, "measure", "give each decoding another temperature")
    return found


def _stage(
    config: RunConfig, name: str, data: Stage, policy: Policy, how: Decoding, questions: list[Question]
) -> Stage:
    sample = replace(
        as_drawn(config.sample),
        n=1,
        temperature=how.temperature,
        top_p=how.top_p,
        max_new_tokens=how.max_new_tokens,
        redraws=0,
    )
    slices = answers.Config(
        sampler=dict(config.sampler),
        sample=sample,
        questions=questions,
        seeds=list(how.seeds),
        allow_targets=allowed(config.sampler, config),
        stop_token_ids=list(config.model.stop_token_ids),
        chat_template=chat_template(config),
        trust_remote_code=config.model.trust_remote_code,
        template_arguments=dict(config.model.template_arguments),
        thinking=replace(config.model.thinking, scored=False, trained=True),
    )
    inputs = answers.Inputs(policy.model, tokenizer(config), canary_stage(config, policy, data, sample))
    placement = side_by_side([config.sampler], Sampler, "sampler", config)
    return answers.TASK.stage(name, slices, Nothing(), inputs, placement)
