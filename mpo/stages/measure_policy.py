"""What a measure finds on one policy by itself, as ``results.json``."""

from __future__ import annotations

from pathlib import Path

from mpo.config.nodes import together
from mpo.config.targets import build
from mpo.evaluate.base import errors_of
from mpo.evaluate.policy_measure import PolicyFiles, PolicyMeasure, write_results
from mpo.failures.user_code import user_code
from mpo.stages.context import StageContext
from mpo.stages.models import model_source, stage_tokenizer
from mpo.stages.nodes import measure_policy
from mpo.stages.summary import Summary

TOKENIZER_FOLDER = "tokenizer"


def run(context: StageContext[measure_policy.Config, measure_policy.Settings, measure_policy.Inputs[Path]]) -> None:
    """Write the results, and beside them what the measure keeps.

    Raises:
        ConfigError: a measure of the user's own raised something.
    """
    config, inputs, key = context.config, context.inputs, context.settings.key
    node = together(config.measure, context.settings.options)
    measure = build(node, PolicyMeasure, config.allow_targets, key)  # type: ignore[type-abstract]
    tokenizer = stage_tokenizer(
        inputs.policy, inputs.tokenizer, config.chat_template, config.trust_remote_code, config.template_arguments
    )
    tokenizer.save_pretrained(context.output / TOKENIZER_FOLDER)  # with the template that the run trains by
    model, revision = model_source(inputs.policy)
    policy = PolicyFiles(
        model,
        revision,
        str(context.output / TOKENIZER_FOLDER),
        has_chat_template=tokenizer.chat_template is not None,
        thought_end=config.thought_end,
        trust_remote_code=config.trust_remote_code,
    )
    with errors_of(key), user_code(type(measure).__module__, type(measure).__name__, key):
        results = measure.measure_policy(policy, context.output)
    write_results(context.output, results)
    Summary(facts={"": {"results": len(results)}}).write(context.output)
