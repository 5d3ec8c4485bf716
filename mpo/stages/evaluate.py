"""One measure of a trained policy: what it finds, as ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mpo.cache.artifacts import write_json
from mpo.config.nodes import together
from mpo.config.targets import build
from mpo.data.store import read_stored_sets
from mpo.evaluate.base import Evidence, Measure, Results, Samples, errors_of
from mpo.evaluate.policy_measure import read_results
from mpo.evaluate.questions import Answer, read_answers
from mpo.failures.user_code import user_code
from mpo.plain import finite, to_plain
from mpo.stages.context import EVALUATION_FILE, StageContext
from mpo.stages.nodes import evaluate
from mpo.stages.summary import Summary
from mpo.types import ResponseSet

Context = StageContext[evaluate.Config, evaluate.Settings, evaluate.Inputs[Path]]


def run(context: Context) -> None:
    """Write estimates, distributions and a few samples.

    Raises:
        ConfigError: a measure of the user's own raised something.
    """
    config, inputs = context.config, context.inputs
    node = together(config.measure, context.settings.options)
    measure = build(node, Measure, config.allow_targets, context.settings.key)  # type: ignore[type-abstract]
    samples = tuple(
        Samples(float(temperature), _heldout_sets(folder), _heldout_sets(inputs.policy_samples[temperature]))
        for temperature, folder in inputs.start_samples.items()
    )
    progress = context.progress()
    heldout = None
    if config.models is not None and inputs.prepare is not None and (inputs.prepare / "heldout").exists():
        from mpo.stages.heldout import heldout_of  # seconds of imports, for measures that forward the policy

        heldout = heldout_of(context)
    results = None
    if inputs.start_results is not None and inputs.policy_results is not None:
        results = Results(read_results(inputs.start_results), read_results(inputs.policy_results))
    evidence = Evidence(
        samples,
        config.score,
        heldout,
        config.seed,
        progress.update if context.rank == 0 else lambda *_: None,
        _answers(inputs.answers),
        _answers(inputs.start_answers),
        context.output,
        context.warn,
        results,
        None if context.settings.verdicts is None else Path(context.settings.verdicts),
        tuple(config.allow_targets),
    )
    key = context.settings.key
    with errors_of(key), user_code(type(measure).__module__, type(measure).__name__, key):
        found = measure.measure(evidence)
    if context.rank > 0:  # of a group that forwards the policy together, the first one writes
        return
    progress.close()
    write_json(context.output / EVALUATION_FILE, finite(to_plain(found)))
    Summary(facts={"": {"estimates": len(found.estimates)}}).write(context.output)


def _heldout_sets(folder: Path) -> list[ResponseSet]:
    return list(read_stored_sets(folder / "heldout.parquet"))


def _answers(folders: Mapping[str, Path]) -> tuple[Answer, ...]:
    """Those of all temperatures, one after the other."""
    return tuple(answer for folder in folders.values() for answer in read_answers(folder))
