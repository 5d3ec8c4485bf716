"""Random command lines end with a plan or with one line that says what to do; never with a traceback, never late."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.config.fuzz import Fuzz
from tests.unit.config.in_process import surroundings

LINES = int(os.environ.get("MPO_FUZZ", "40"))
"""Command lines that are tried; MPO_FUZZ=5000 is the long form."""
SEED = int(os.environ.get("MPO_FUZZ_SEED", "1"))


@pytest.mark.timeout(0 if LINES > 1000 else 600)
def test_random_command_lines_end_well(tmp_path: Path) -> None:
    with surroundings(tmp_path):
        outcomes = list(Fuzz(SEED).lines(LINES))
    faults = [f"{ascii(arguments)}\n{outcome.fault}" for arguments, outcome in outcomes if outcome.fault]
    assert not faults, f"{len(faults)} of {LINES}:\n" + "\n\n".join(faults[:20])
    assert {outcome.code for _, outcome in outcomes} == {0, 2}  # not all are refused
