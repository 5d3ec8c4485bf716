"""The stages that draw responses, and what they check an engine's weights by."""

from __future__ import annotations

from dataclasses import replace

from mpo.cache.stage import Nothing, Stage
from mpo.config.schema import RunConfig, SampleConfig
from mpo.config.targets import resolve
from mpo.errors import ConfigError
from mpo.pipeline.graph import Policy
from mpo.pipeline.stage_configs import allowed, chat_template, side_by_side, tokenizer
from mpo.sample.base import Sampler
from mpo.sample.unwanted import as_drawn
from mpo.stages.nodes import canary, sample


def sample_stage(
    config: RunConfig,
    name: str,
    how: SampleConfig,
    sampler: Policy,
    prompts: Stage,
    seed: int,
    *,
    splits: list[str],
    share: tuple[int, int] = (1, 1),
    first: int | None = None,
) -> Stage:
    """Responses drawn from ``sampler`` for the prompts of another stage.

    Args:
        splits: whose prompts.
        share: which of how many parts of the training prompts.
        first: so many prompts only.
    """
    slices = sample.Config(
        sampler=dict(config.sampler),
        sample=how,
        seed=seed,
        splits=splits,
        round=share[0],
        rounds=share[1],
        seed_rounds=config.data.split_seed if share[1] > 1 else 0,
        prompts=first,
        allow_targets=allowed(config.sampler, config),
        stop_token_ids=list(config.model.stop_token_ids),
        max_prompt_tokens=config.data.max_prompt_tokens,
        max_skipped_share=config.data.max_skipped_share,
        chat_template=chat_template(config),
        template_arguments=dict(config.model.template_arguments),
        thinking=replace(config.model.thinking, scored=False, trained=True),
        trust_remote_code=config.model.trust_remote_code,
    )
    inputs = sample.Inputs(prompts, sampler.model, tokenizer(config), canary_stage(config, sampler, prompts, how))
    return sample.TASK.stage(
        name, slices, Nothing(), inputs, side_by_side([config.sampler], Sampler, "sampler", config)
    )


def evaluation_sample_stage(
    config: RunConfig, name: str, prompts: Stage, sampler: Policy, temperature: float, seed: int
) -> Stage:
    """Responses to held-out prompts at one temperature."""
    how = replace(as_drawn(config.sample), n=config.evaluate.samples, temperature=temperature, top_p=1.0)
    return sample_stage(config, name, how, sampler, prompts, seed, splits=["heldout"], first=config.evaluate.prompts)


def canary_stage(config: RunConfig, sampler: Policy, prompts: Stage, how: SampleConfig) -> Stage | None:
    """The policy's log-probs of a prompt, for a sampler that asks for them."""
    try:
        cls = resolve(config.sampler, Sampler, config.allow_targets, "sampler")  # type: ignore[type-abstract]
    except ConfigError:  # a plan needs neither it nor its package
        return None
    if not cls.checks_weights:
        return None
    slices = canary.Config(
        precision=how.precision,
        chat_template=chat_template(config),
        trust_remote_code=config.model.trust_remote_code,
        template_arguments=dict(config.model.template_arguments),
    )
    made_by = sampler.model.name if isinstance(sampler.model, Stage) else "start/model"
    name = "/".join([*made_by.split("/")[:-1], "canary"])
    return canary.TASK.stage(name, slices, Nothing(), canary.Inputs(prompts, sampler.model, tokenizer(config)))
