"""From a file of the size of UltraFeedback to memory-mapped tokens: seconds and memory of each stage.

    python -m benchmarks.pipeline [--sets 64000] [--json]

Writes texts of made-up words with UltraFeedback's mean lengths (64,000 prompts, 4 responses) to a temporary folder,
then reads, checks and splits them, and renders and tokenises them with a byte-level BPE trained on them. Both stages
are the run's own, in a process each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import report, run_side, tell

WORDS = 20_000
PROMPT_WORDS, RESPONSE_WORDS = 140, 215
"""UltraFeedback's means in words; about 180 and 280 tokens."""


def main() -> None:
    """Write the file, then both stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=64_000)
    parser.add_argument("--responses", type=int, default=4, help="K")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        tell({"data": _data, "prepare": _prepare}[arguments.side](arguments.folder))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "sets.jsonl"
        _write(source, arguments.sets, arguments.responses)
        _tokenizer(folder)
        rows = [{"stage": stage, **run_side("benchmarks.pipeline", [f"--side={stage}", f"--folder={folder}"],
                                            arguments.threads)} for stage in ("data", "prepare")]  # fmt: skip
        for row in rows:
            row["megabytes_a_second"] = source.stat().st_size / 1e6 / row["seconds"]
    if arguments.json:
        report("pipeline", arguments, rows)
        return
    for row in rows:
        print(
            f"{row['stage']:8}{row['seconds']:7.1f} s  {row['megabytes_a_second']:6.1f} MB/s  "
            f"{row['peak_bytes'] / 2**20:6.0f} MiB a process at most  {row['tokens'] / 1e6:.1f}M tokens"
        )


def _write(path: Path, sets: int, responses: int) -> None:
    draw = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmwfgypbvk"))
    words = ["".join(draw.choice(letters, draw.integers(2, 10))) for _ in range(WORDS)]
    share = 1.0 / np.arange(1, WORDS + 1)  # as in language, the n-th most common word has a share of about 1/n
    pool = draw.choice(WORDS, 4_000_000, p=share / share.sum())

    def text(mean: int) -> str:
        count = max(3, int(draw.gamma(2.0, mean / 2)))
        start = int(draw.integers(0, len(pool) - count))
        return " ".join(words[i] for i in pool[start : start + count])

    with path.open("w") as out:
        for i in range(sets):
            answers = [{"text": text(RESPONSE_WORDS), "score": float(draw.integers(1, 11))} for _ in range(responses)]
            out.write(json.dumps({"id": str(i), "prompt": text(PROMPT_WORDS), "responses": answers}) + "\n")


def _tokenizer(folder: Path) -> None:
    """A policy's folder without weights, which the stage does not read."""
    from transformers import LlamaConfig

    from mpo.data.tokenizer import train_tokenizer

    with (folder / "sets.jsonl").open() as lines:
        some = [json.loads(line)["prompt"] for _, line in zip(range(2000), lines, strict=False)]
    tokenizer = train_tokenizer(some, 16_000, folder / "tokenizer")
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(folder / "tokenizer")


def _run(task: str, config: Any, settings: Any, inputs: Any, out: Path) -> float:
    import importlib

    from mpo.stages.context import StageContext

    out.mkdir()
    stage = importlib.import_module(f"mpo.stages.{task}")
    began = time.perf_counter()
    stage.run(StageContext(task, config, settings, inputs, out))
    return time.perf_counter() - began


def _told(seconds: float, tokens: int) -> dict[str, Any]:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return {"seconds": seconds, "peak_bytes": max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024,
            "tokens": tokens}  # fmt: skip


def _data(folder: Path) -> dict[str, Any]:
    from mpo.cache.stage import File
    from mpo.stages.nodes import data

    config = data.Config(heldout=500, max_skipped_share=0.1, needs_scores=True, contrasts=True)
    inputs: data.Inputs[Path] = data.Inputs(File(str(folder / "sets.jsonl")))
    return _told(_run("data", config, data.Settings(), inputs, folder / "data"), 0)


def _prepare(folder: Path) -> dict[str, Any]:
    from mpo.cache.stage import File, Nothing
    from mpo.stages.nodes import prepare
    from mpo.stages.summary import Summary

    config = prepare.Config(1800, 2048, 0.1, flatten=None, score="data", chat_template=None, trust_remote_code=False)
    inputs = prepare.Inputs(folder / "data", File(str(folder / "tokenizer")))
    seconds = _run("prepare", config, Nothing(), inputs, folder / "prepare")
    facts = Summary.read(folder / "prepare").facts["train"]
    return _told(seconds, facts["prompt_tokens"] + facts["response_tokens"])


if __name__ == "__main__":
    main()
