"""What a configuration asks of samplers, and how many responses a set then has. No torch."""

from __future__ import annotations

from mpo.config.schema import RunConfig
from mpo.config.source import source_of


def samples(config: RunConfig) -> bool:
    """Whether the run draws its response sets from a policy: its regime does, or the source has prompts alone."""
    if config.regime.samples or config.regime.imitate is not None:
        return config.regime.samples
    return not source_of(config.data, config.allow_targets).gives_responses


def draws(config: RunConfig) -> bool:
    """Whether the run may draw responses from a policy at all, be it to evaluate alone."""
    return samples(config) or bool(config.evaluate.measures and config.evaluate.temperatures)


def responses_a_set(config: RunConfig) -> int | None:
    """K where it is known before anything is read: samples per prompt, or what the data's file says."""
    return config.sample.n if samples(config) else config.data.expected_responses
