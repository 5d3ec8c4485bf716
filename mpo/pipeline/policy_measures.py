"""The stages in which a measure looks at one policy by itself."""

from __future__ import annotations

from mpo.cache.stage import Stage
from mpo.config.schema import RunConfig
from mpo.evaluate.policy_measure import PolicyMeasure
from mpo.pipeline.graph import Policy
from mpo.pipeline.stage_configs import allowed, chat_template, parted, tokenizer
from mpo.stages.nodes import measure_policy


def measure_policy_stage(config: RunConfig, stage: str, name: str, measure: PolicyMeasure, policy: Policy) -> Stage:
    """What the measure ``name`` finds on one policy by itself."""
    node, files, apart = parted(config, name, measure)
    slices = measure_policy.Config(
        node,
        chat_template=chat_template(config),
        template_arguments=dict(config.model.template_arguments),
        thought_end=config.model.thinking.end,
        trust_remote_code=config.model.trust_remote_code,
        allow_targets=allowed(node, config),
    )
    settings = measure_policy.Settings(apart, f"evaluate.measures.{name}")
    inputs = measure_policy.Inputs(policy.model, tokenizer(config), files)
    return measure_policy.TASK.stage(stage, slices, settings, inputs)
