"""Benchmarks run, at a size whose figures mean nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TINY = ("--model", "tiny", "--prompt", "20", "--length", "30", "--sets", "2", "--steps", "1")


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=550
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_data_pipelines_benchmark() -> None:
    rows = json.loads(run("benchmarks.pipeline", "--sets", "600", "--json"))["rows"]
    assert [row["stage"] for row in rows] == ["data", "prepare"]
    assert rows[1]["tokens"] > 100_000


@pytest.mark.slow  # eight processes that import torch and DeepSpeed
def test_all_that_a_card_is_asked_runs_without_one(tmp_path: Path) -> None:
    shown = run("benchmarks.bench_gpu", "--device", "cpu", "--small", "--out", str(tmp_path))
    record: dict[str, Any] = json.loads((tmp_path / "bench.json").read_text())
    assert shown.strip() == (tmp_path / "bench.md").read_text().strip()
    assert record["device"] == {"kind": "cpu"} and record["versions"]["torch"] and record["commit"]
    parts = {part["name"]: part for part in record["parts"]}
    assert list(parts) == ["mfu_1b", "step_vs_trl", "large_k", "layouts", "breakdown_1b"]
    if importlib.util.find_spec("trl") is None:
        assert "TRL is not installed" in parts.pop("step_vs_trl")["skipped"]
    assert not [part["name"] for part in parts.values() if "result" not in part]
    (useful,) = parts["mfu_1b"]["result"]["rows"]
    assert 0 < useful["share"] < 1 and useful["share_of_shape"] > 0 and useful["share_of_data_sheet"] is None
    assert [row["responses"] for row in parts["large_k"]["result"]["rows"]] == [8, 128]
    assert [row["layout"] for row in parts["layouts"]["result"]["rows"]] == ["padded", "packed", "shared"]
    (profiled,) = parts["breakdown_1b"]["result"]["rows"]
    assert sum(profiled["profile"]["shares"].values()) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")
def test_a_step_beside_trls() -> None:
    rows = json.loads(run("benchmarks.step_vs_trl", *TINY, "--theirs", "fp32", "bf16", "--json"))["rows"]
    assert [row["side"] for row in rows] == ["mpo", "trl", "trl", "ratio"]
    assert rows[2]["settings"]["attention"] == "sdpa" and rows[2]["settings"]["precomputed_reference"]
    assert rows[3]["against"] in {rows[1]["name"], rows[2]["name"]} and rows[3]["responses_per_second"] > 0


@pytest.mark.slow
def test_what_checkpoints_cost() -> None:
    sizes = ("--model", "tiny", "--every", "2", "--intervals", "2", "--rounds", "1")
    rows = json.loads(run("benchmarks.checkpoints", *sizes, "--json"))["rows"]
    assert [row["side"] for row in rows] == ["none", "async", "at once"]
    assert [row["steps"] for row in rows] == [4, 4, 4]
    assert rows[0]["time_ratio"] == rows[0]["memory_ratio"] == 1 and not rows[0]["checkpoint_bytes"]
    parameters = 512 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    assert all(12 * parameters < row["checkpoint_bytes"] < 14 * parameters for row in rows[1:])
