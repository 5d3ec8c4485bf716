"""The facts of a finished run, as plain data: what its page is made from and what later comparisons read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import read_json, write_json
from mpo.errors import DataError
from mpo.evaluate.records import Baseline, Distribution, Estimate, Findings, PromptValues, SampleRow
from mpo.plain import finite
from mpo.report.words import titles
from mpo.track.metrics import read_metrics
from mpo.track.profile import Profile
from mpo.track.units import memory, step_duration

STOPPED_BEHIND = "training: stopped early, below the median of the sweep, at step"
"""Among the facts of a run whose training ``train.stop_behind`` has ended."""
RESULT_FILE = "result.json"


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage: built or taken from the cache, its seconds, peak memory in bytes and folder, and the share of its time
    in which its card was at work, where there was one."""

    name: str
    cached: bool
    seconds: float
    peak_memory_bytes: int | None = None
    path: str = ""
    card_busy: float | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """What the plan said of the training and what it was: in ``seconds`` or ``bytes``."""

    name: str
    unit: str
    predicted: float
    measured: float

    def __str__(self) -> str:
        shown = step_duration if self.unit == "seconds" else memory
        times = self.measured / self.predicted
        return f"{shown(self.predicted)} planned, {shown(self.measured)} measured ({times:.2f} times)"


@dataclass(frozen=True, slots=True)
class RankedScores:
    """Mean score by rank of one round's sampled training sets, from the best response to the worst.

    ``scorer``: whose scores; ``trains``: whether the partition reads them.
    """

    scorer: str
    trains: bool
    round: int
    mean: tuple[float, ...]


CHIEF = ("sampling", "scoring", "reference", "training")
"""What a round is for; evaluation and preparing come on top. The reference's log-probs are a part of the loss: other
trainers compute them in each step."""


@dataclass(frozen=True, slots=True)
class RoundRow:
    """Seconds of one round's stages when they were built, by what they do; what it drew to train on."""

    round: int
    seconds: dict[str, float]
    sets: int
    responses: int
    tokens: int

    @property
    def whole(self) -> float:
        """Seconds of all its stages."""
        return sum(self.seconds.values())

    @property
    def outside(self) -> float:
        """The share of them in which nothing is sampled, scored or trained; the reference counts as training."""
        return 1 - sum(self.seconds.get(kind, 0.0) for kind in CHIEF) / self.whole if self.whole else 0.0


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """One of the responses that a round has drawn to train on, with the scores of every scorer."""

    round: int
    prompt: str
    response: str
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything that a page shows of one run.

    ``folder`` is where the run lives; it is not stored in the file. ``metrics_paths`` are the metrics files of its
    preference training, one a round, absolute or relative to ``folder`` (a copy there outlives the cache). ``note`` is
    said beside every result of the run's data. ``created`` is an ISO 8601 time. ``profiles``: by training stage, where
    ``train.profile`` asked for them.
    """

    folder: Path
    name: str
    title: str
    config: dict[str, Any]
    seed: int
    versions: dict[str, str]
    commit: str
    hardware: str
    command: str
    created: str
    stages: tuple[StageRow, ...] = ()
    planned: tuple[Planned, ...] = ()
    profiles: dict[str, Profile] = field(default_factory=dict)
    metrics_paths: tuple[str, ...] = ()
    note: str = ""
    evaluation: tuple[Estimate, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    data_facts: dict[str, str | int | float] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    samples: tuple[SampleRow, ...] = ()
    scores: tuple[RankedScores, ...] = ()
    rounds: tuple[RoundRow, ...] = ()
    scored: tuple[ScoredResponse, ...] = ()
    by_prompt: tuple[PromptValues, ...] = ()

    @property
    def measures(self) -> dict[str, Estimate]:
        """Estimates by what people call them; the first ones are the page's headline."""
        return titles(self.evaluation)

    @property
    def seconds(self) -> float:
        """Seconds of the stages that were built."""
        return sum(stage.seconds for stage in self.stages if not stage.cached)

    @property
    def peak_memory_bytes(self) -> int | None:
        """The largest stage's peak memory, where any was measured."""
        return max((s.peak_memory_bytes for s in self.stages if s.peak_memory_bytes is not None), default=None)

    def metrics(self) -> list[list[dict[str, Any]]]:
        """The records of each metrics file; raises :class:`DataError` where one is missing or broken."""
        return [read_metrics(self.folder / path) for path in self.metrics_paths]

    def save(self) -> Path:
        """Writes ``folder/result.json`` atomically and returns its path."""
        path = self.folder / RESULT_FILE
        write_json(path, finite({key: value for key, value in asdict(self).items() if key != "folder"}))
        return path

    @classmethod
    def load(cls, folder: Path) -> RunReport:
        """Reads ``folder/result.json``.

        Raises:
            DataError: the file is missing, or is not the record of a run.
        """
        path = folder / RESULT_FILE
        try:
            record = read_json(path)
            known = {f.name for f in fields(cls)}
            if unknown := sorted(set(record) - known):
                raise DataError(f"unknown fields {unknown}", str(path), "write it again with this version of mpo")
            return cls(
                **record
                | {
                    "folder": folder,
                    "stages": tuple(StageRow(**row) for row in record["stages"]),
                    "planned": tuple(Planned(**row) for row in record["planned"]),
                    "profiles": {stage: Profile(**row) for stage, row in record.get("profiles", {}).items()},
                    "metrics_paths": tuple(record["metrics_paths"]),
                    "evaluation": tuple(_estimate(row) for row in record["evaluation"]),
                    "distributions": tuple(_distribution(row) for row in record["distributions"]),
                    "samples": tuple(SampleRow(**row) for row in record["samples"]),
                    "scores": tuple(
                        RankedScores(**{**row, "mean": tuple(row["mean"])}) for row in record.get("scores", ())
                    ),
                    "rounds": tuple(RoundRow(**row) for row in record.get("rounds", ())),
                    "scored": tuple(ScoredResponse(**row) for row in record.get("scored", ())),
                    "by_prompt": tuple(_prompt_values(row) for row in record.get("by_prompt", ())),
                }
            )
        except FileNotFoundError as error:
            raise DataError("no result of a run", str(path), "name the folder of a finished run") from error
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise DataError(f"not the record of a run: {error}", str(path), "run it again") from error


def read_findings(record: dict[str, Any]) -> Findings:
    """What a measure has written."""
    return Findings(
        [_estimate(row) for row in record["estimates"]],
        [_distribution(row) for row in record["distributions"]],
        [SampleRow(**row) for row in record["samples"]],
        [_prompt_values(row) for row in record.get("by_prompt", ())],  # which older ones have not
    )


def _estimate(row: dict[str, Any]) -> Estimate:
    baselines = tuple(Baseline(**{**b, "value": _number(b["value"])}) for b in row["baselines"])
    return Estimate(**{**row, "value": _number(row["value"]), "baselines": baselines})


def _distribution(row: dict[str, Any]) -> Distribution:
    series = {name: tuple(map(_number, values)) for name, values in row["series"].items()}
    return Distribution(row["name"], row["unit"], series)


def _prompt_values(row: dict[str, Any]) -> PromptValues:
    return PromptValues(**{**row, "prompts": tuple(row["prompts"]), "values": tuple(map(_number, row["values"]))})


def _number(value: float | None) -> float:
    return math.nan if value is None else value
