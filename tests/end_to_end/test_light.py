"""What people ask for most often must not wait for torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import CommandLine

HEAVY = {"torch", "transformers", "datasets", "deepspeed", "wandb", "numpy", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["loss=wmpo", "model=llama3_8b", "--cfg", "job"]])
def test_help_and_config_import_nothing_heavy(mpo: CommandLine, tmp_path: Path, arguments: list[str]) -> None:
    loaded = tmp_path / "modules"
    code = (
        "import atexit, sys; from pathlib import Path; "
        f"atexit.register(lambda: Path({str(loaded)!r}).write_text(chr(10).join(sys.modules))); "
        "from mpo.run import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=mpo.home,
        env=mpo.variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "loss" in done.stdout
    assert HEAVY & set(loaded.read_text().split()) == set()


def test_help_names_every_group_and_says_what_to_try(mpo: CommandLine) -> None:
    text = mpo("--help").out
    for group in ("model", "data", "partition", "loss", "regime", "train", "evaluate", "logger", "launcher"):
        assert f"\n{group}:" in text, group
    assert "python -m mpo.run loss=wmpo model=llama3_8b dry_run=true" in text


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_a_reader_may_have_seen_enough(mpo: CommandLine, arguments: list[str]) -> None:
    """As with ``| head``: no traceback."""
    process, _ = mpo.start(*arguments)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0


def test_a_file_is_planned_from_its_beginning(mpo: CommandLine, tmp_path: Path) -> None:
    row = {"prompt": "x" * 40, "responses": ["y" * 80, "z" * 80], "scores": [1, 2]}
    file = tmp_path / "sets.jsonl"
    file.write_text("".join(json.dumps({**row, "id": str(i)}) + "\n" for i in range(100)))
    outcome = mpo("model=small", "data=response_sets", f"data.source={file}", "dry_run=true")
    assert "90 sets × 2 responses, about 4.5k tokens (prompt 10, response 20)" in outcome.out
    assert "18 optimizer steps" in outcome.out and "a step and process" in outcome.out


def test_the_papers_setting_composes_and_is_planned_without_weights(mpo: CommandLine) -> None:
    outcome = mpo("loss=wmpo", "model=llama3_8b", "dry_run=true")
    assert outcome.seconds < 60  # 5 s on idle cores; what is asserted is that nothing is downloaded or built
    for part in ("downloads", "optimizer steps", "parameters", "chosen", "ZeRO", "disk", "sets ×"):
        assert part in outcome.out, part
    assert outcome.err == "" and outcome.started == []
    assert not mpo.cache.exists() or not list(mpo.cache.glob("train/*/model*"))


def test_a_flag_may_follow_the_overrides(mpo: CommandLine, tmp_path: Path) -> None:
    outcome = mpo("loss=dpo", "-m", "seed=0,1", "dry_run=true", f"hydra.sweep.dir={tmp_path}")
    assert [f"mpo  dpo · tiny · testbed · off_policy · seed {seed}" in outcome.out for seed in (0, 1)] == [True, True]
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        ("> /dev/full", 2, "mpo: error: standard output: it cannot be written to"),
    ],
)
def test_standard_streams_may_be_closed_or_full(mpo: CommandLine, redirection: str, code: int, said: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m mpo.run --cfg job {redirection}'],
        check=False,
        cwd=mpo.home,
        env=mpo.variables(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert done.stderr[: len(said)] == said and len(done.stderr.splitlines()) == bool(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_at_any_time_while_it_starts(mpo: CommandLine, number: signal.Signals) -> None:
    """From when it begins to import until torch is being imported."""
    for wait in (0.15, 0.5, 1.5):
        process, _ = mpo.start("dry_run=true", "seed=3")
        time.sleep(wait)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=60)
        if "runpy" not in err:  # Python's own beginning, before any of our code, has not been left behind
            assert err in ("", "mpo: stopped; the same command goes on from where it was\n")
            assert process.returncode in (0, -number, 143)
