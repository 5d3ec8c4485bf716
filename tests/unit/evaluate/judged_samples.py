"""Samples of two policies, the judged measure with the shipped options, and evidence that it reads."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mpo.config.paths import folder
from mpo.evaluate import Evidence, Samples
from mpo.evaluate.judged_win_rate import JudgedWinRate
from mpo.evaluate.records import Estimate, Findings
from mpo.types import Message, Response, ResponseSet
from tests.unit.sample.loopback import Loopback
from tests.unit.score.judging import options

Texts = list[tuple[str, str]]


def samples(texts: Texts, temperature: float = 0.7) -> Samples:
    """The baseline's and the policy's answer to each prompt."""

    def sets(side: int) -> list[ResponseSet]:
        return [
            ResponseSet(str(n), (Message("user", f"Question {n}?"),), (Response(each[side]),))
            for n, each in enumerate(texts)
        ]

    return Samples(temperature, sets(0), sets(1))


def evidence(*found: Samples, verdicts: Path | None = None) -> Evidence:
    return Evidence(found, None, None, 0, lambda done, total, what: None, verdicts=verdicts)


@dataclass(frozen=True)
class Judged:
    """What the measure has found, warned of and written, by file name."""

    findings: Findings
    warnings: list[str]
    files: dict[str, Any]


def judged(made: JudgedWinRate, given: Evidence) -> Judged:
    warnings: list[str] = []
    with tempfile.TemporaryDirectory() as output:
        found = made.measure(replace(given, output=Path(output), warn=warnings.append))
        files = {path.name: json.loads(path.read_text()) for path in sorted(Path(output).iterdir())}
    return Judged(found, warnings, files)


def measure(*servers: Loopback, judges: dict[str, Any] | None = None, **others: Any) -> JudgedWinRate:
    """``conf/evaluate/judged.yaml`` with these servers, or these judges."""
    node = yaml.safe_load((folder("conf") / "evaluate" / "judged.yaml").read_text())["measures"]["judged"]
    node.pop("_target_")
    return JudgedWinRate(judges=judges or {"judge": options("llm_judge_pairwise", *servers)}, **{**node, **others})


def by_key(found: Findings | Judged) -> dict[str, Estimate]:
    findings = found.findings if isinstance(found, Judged) else found
    return {each.key.removeprefix("heldout/"): each for each in findings.estimates}
