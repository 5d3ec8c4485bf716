"""The two sentences at the head of a page: what was trained on what, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mpo.evaluate.records import Estimate
from mpo.report.records import RunReport
from mpo.track.units import number

MEASURES = 3
"""Measures that the result sentence names: the first of the evaluation."""


def label_and_rest(note: str) -> tuple[str, str]:
    """A note's first sentence, without its full stop, and the others."""
    label, _, rest = note.partition(". ")
    return label, rest


def trained_sentence(run: RunReport) -> str:
    """Which policy was trained with which loss, on which data, in which regime."""
    config = run.config
    model = config.get("model", {})
    policy = model.get("path") or "a policy trained from scratch"
    loss = target_name(config.get("loss", {}))
    source = config.get("data", {}).get("source", "unnamed data")
    if isinstance(source, dict):  # a class, which has named the data when it was read
        source = run.data_facts.get("source", target_name(source))
    regime = config.get("regime", {})
    how = str(regime.get("name", "")).replace("_", "-")
    rounds = run.config.get("rounds", 1)
    sentence = f"{policy}, trained with {loss} on {source}"
    if how:
        sentence += f", {how}" + (f" ({rounds} rounds)" if rounds > 1 else "")
    return sentence[0].upper() + sentence[1:] + "."


def result_sentence(evaluation: Mapping[str, Estimate]) -> str:
    """The first measures with their standard errors and first baselines; says so where there are none."""
    if not evaluation:
        return "Nothing was evaluated."
    parts = []
    for name, estimate in list(evaluation.items())[:MEASURES]:
        part = f"{name} {with_unit(estimate.value, estimate.standard_error, estimate.unit)}"
        if estimate.baselines:
            baseline = estimate.baselines[0]
            part += f" ({baseline.name} {number(baseline.value, baseline.standard_error)})"
        parts.append(part)
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."


def with_unit(value: float, standard_error: float | None, unit: str) -> str:
    """A number with its error and unit; a percent sign stands close, a missing value alone."""
    text = number(value, standard_error)
    return text if not unit or text == "–" else f"{text}{'' if unit == '%' else ' '}{unit}"


def target_name(group: Mapping[str, Any]) -> str:
    """The name of a ``_target_`` group's class, e.g. ``MPO`` of ``mpo.losses.MPO``."""
    return re.sub(r".*\.", "", str(group.get("_target_", group.get("name", "no loss"))))
