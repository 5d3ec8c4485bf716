"""What a configuration asks of samplers, and how many responses a set then has. No torch."""

from __future__ import annotations

from mpo.config.schema import RunConfig
from mpo.config.source import source_of
from mpo.config.targets import build, resolve
from mpo.evaluate.base import Measure, errors_of


def samples(config: RunConfig) -> bool:
    """Whether the run draws its response sets from a policy: its regime does, or the source has prompts alone."""
    if config.regime.samples or config.regime.imitate is not None:
        return config.regime.samples
    return not source_of(config.data, config.allow_targets).gives_responses


def draws(config: RunConfig) -> bool:
    """Whether the run may draw responses from a policy at all, be it to evaluate alone."""
    return samples(config) or bool(config.evaluate.measures and config.evaluate.temperatures)


def answers(config: RunConfig) -> bool:
    """Whether a measure has questions of its own, which the policy answers."""
    return any(measure_class(config, name).needs_answers for name in config.evaluate.measures)


def forwarding(config: RunConfig) -> list[str]:
    """Names of the measures that forward the trained policy themselves."""
    return [name for name in config.evaluate.measures if measure_class(config, name).needs_models]


def measure_class(config: RunConfig, name: str) -> type[Measure]:
    """The class of a measure; raises as :func:`mpo.config.targets.resolve`."""
    key = f"evaluate.measures.{name}"
    return resolve(config.evaluate.measures[name], Measure, config.allow_targets, key)  # type: ignore[type-abstract]


def build_measure(config: RunConfig, name: str) -> Measure:
    """A measure; raises as :func:`mpo.config.targets.build`."""
    key = f"evaluate.measures.{name}"
    with errors_of(key):
        return build(config.evaluate.measures[name], Measure, config.allow_targets, key)  # type: ignore[type-abstract]


def responses_a_set(config: RunConfig) -> int | None:
    """K where it is known before anything is read: samples per prompt, or what the data's file says."""
    return config.sample.n if samples(config) else config.data.expected_responses
