"""Benchmarks run, at a size whose figures mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_data_pipelines_benchmark() -> None:
    arguments = [sys.executable, "-m", "benchmarks.pipeline", "--sets", "600", "--json"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)["rows"]
    assert [row["stage"] for row in rows] == ["data", "prepare"]
    assert rows[1]["tokens"] > 100_000
