"""What every stage says of itself once it is done: sets left out, warnings, facts. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpo.cache.artifacts import read_json, write_json
from mpo.plain import from_plain, to_plain

SUMMARY_FILE = "summary.json"
PROFILE = "profile"
"""Fact of a training: a :class:`mpo.track.profile.Profile`."""


@dataclass(frozen=True)
class Summary:
    """Of one stage, by split (``train``, ``heldout``).

    Attributes:
        skipped: sets that were left out, by reason.
        warnings: sets that are used with a warning, by reason.
        facts: numbers and short texts for people; those under ``""`` are of no split.
        problems: the first problems, each as ``file:line: reason: message``.
    """

    skipped: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: dict[str, dict[str, int]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Save it in the stage's directory: the last thing that a stage does."""
        write_json(folder / SUMMARY_FILE, to_plain(self))

    @classmethod
    def read(cls, folder: Path) -> Summary:
        """That of a complete stage."""
        return from_plain(cls, read_json(folder / SUMMARY_FILE))

    def fact(self, name: str, split: str = "") -> Any:
        """One fact; raises KeyError where the stage has not given it."""
        return self.facts[split][name]


def counts(found: Mapping[Any, int]) -> dict[str, int]:
    """Counts by reason with plain names."""
    return {str(reason): count for reason, count in found.items()}
