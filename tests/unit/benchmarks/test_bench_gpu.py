"""The suite of benchmarks: how its parts end, and the table that is made of them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks import bench_gpu
from benchmarks.bench_gpu import PARTS, run_part
from benchmarks.bench_table import table
from mpo.errors import EXIT_CODE

GIB = 2**30
H100 = {"kind": "cuda", "name": "NVIDIA H100 80GB HBM3", "memory_bytes": 80 * GIB, "driver": "1", "cuda": "2"}


def ended(script: str, left: float = 60.0) -> dict[str, Any]:
    return run_part([sys.executable, "-c", script], dict(os.environ), left)


def test_a_part_ends_with_its_result_a_reason_or_a_failure() -> None:
    assert ended("print('{\"rows\": []}')")["result"] == {"rows": []}
    assert ended(f"import sys; print('no TRL', file=sys.stderr); sys.exit({EXIT_CODE})")["skipped"] == "no TRL"
    failed = ended("raise ValueError('broken')")
    assert failed["failed"] == "ValueError: broken" and "Traceback" in failed["log"]
    assert ended("1 / 0", left=1.0)["skipped"] == "no time was left"


def test_a_part_without_time_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu, "LEAST_S", 0)
    script = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid)); child.wait()"
    )
    found = ended(script, left=5.0)
    assert found["skipped"] == "no time was left to end it" and found["seconds"] < 30
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_gpu", "--out", str(tmp_path / "out")])
    assert bench_gpu.main() == EXIT_CODE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench-gpu: needs a CUDA card; ") and not (tmp_path / "out").exists()


def part(name: str, result: dict[str, Any] | None = None, **ending: str) -> dict[str, Any]:
    module = next(each.module for each in PARTS if each.name == name)
    return {"name": name, "module": module, **({} if result is None else {"result": result}), **ending}


def on_a_card(share: float, faster: float, larger: float) -> dict[str, Any]:
    """An invented record."""
    held = {"peak_bytes": 30 * GIB, "reserved_bytes": 32 * GIB}
    useful = {
        "parameters": 1.236e9, "product_flops_per_second": 700e12, "share": share, "share_of_data_sheet": 0.4,
        "tokens": 40_000, "mean_seconds_a_step": 0.5, **held,
    }  # fmt: skip
    settings = {
        "attention": "sdpa", "head": "TRL's own, in chunks", "weights": "float32", "autocast": True,
        "padding_free": False, "liger_layers": True,
    }  # fmt: skip
    trl = [
        {"side": "mpo", "name": "mpo", **held},
        {"side": "trl", "name": "trl bf16, 4 pairs", "pairs": 4, "settings": settings, "peak_bytes": 60 * GIB},
        {"side": "trl", "name": "trl bf16, 8 pairs", "failed": "out of the card's memory"},
        {"side": "ratio", "against": "trl bf16, 4 pairs", "responses_per_second": faster, "peak_bytes": 0.5},
    ]
    sets = [
        {"responses": k, "memory_ratio": ratio, "time_ratio": 1.1, **held} for k, ratio in ((8, 1.0), (128, larger))
    ]
    layouts = [{"responses": 8, "layout": "shared", "speed_ratio": 1.4, "memory_ratio": 0.6}]
    return {
        "command": "python -m benchmarks.bench_gpu", "created": "2030-01-01T00:00:00+00:00", "small": False,
        "commit": "0123456789abcdef", "hardware": "a CPU", "versions": {"torch": "9"},
        "device": H100,
        "parts": [
            part("mfu_1b", {"rows": [useful], "arguments": {"responses": 4}}),
            part("step_vs_trl", {"rows": trl, "versions": {"trl": "1.16.0"}}),
            part("large_k", {"rows": sets}), part("mfu_8b", skipped="no time was left"),
            part("layouts", {"rows": layouts}), part("breakdown_1b", failed="a | b"),
        ],
    }  # fmt: skip


def measured(record: dict[str, Any]) -> list[list[str]]:
    """Rows of the table below its head, each question, goal and measurement."""
    rows = [line for line in table(record).splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in row.strip("|").replace("\\|", "¦").split("|")] for row in rows]


def test_the_table_shows_figures_beside_goals() -> None:
    record = on_a_card(0.52, 2.5, 1.25)
    assert "NVIDIA H100 80GB HBM3 (80.0 GiB), driver 1, CUDA 2; torch 9." in table(record)
    mfu, trl, large, skipped, layouts, failed = measured(record)
    assert mfu[1:] == ["50%", "40% of the data sheet; 80,000 tokens/s, 30.0 GiB (32.0 GiB reserved); 52%, met"]
    assert "sdpa, head: TRL's own, in chunks, float32 weights, autocast, liger layers, 4 pairs at once" in trl[0]
    assert trl[1:] == [
        "3 × its rate",
        "0.50 × its memory (30.0 GiB (32.0 GiB reserved) beside 60.0 GiB); 2.50 × its rate, not met",
    ]
    assert large[1] == "1.3 × its memory" and large[2].endswith(", 1.25 ×, met")
    assert skipped == ["`mfu_8b`", "", "skipped: no time was left"]
    assert layouts[2] == "1.40 × the rate, 0.60 × the memory above the model"
    assert failed[2] == "failed: a ¦ b"


def test_what_is_no_card_or_tiny_is_not_judged() -> None:
    record = on_a_card(0.1, 9.0, 1.0)
    assert table(record).count(", met |") == 2 and table(record).count(", not met |") == 1
    for other in ({"small": True}, {"device": {"kind": "cpu"}}):
        assert "met |" not in table(record | other)
    assert "A trial of the code" in table(record | {"small": True})
