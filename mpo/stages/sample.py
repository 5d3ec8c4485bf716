"""Draw responses to the prompts of one round (``train``) and to the held-out ones (``heldout``)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mpo.artifacts import write_json
from mpo.config.schema import SampleConfig
from mpo.data.chat import render_prompt, stop_ids
from mpo.data.problems import Reason
from mpo.data.split import prompt_key, split_rounds
from mpo.data.store import read_stored_sets, write_sets
from mpo.errors import DataError
from mpo.logprobs.devices import join_group
from mpo.logprobs.load import load_model
from mpo.sample.hf import Sampled, sample_responses
from mpo.stages.context import SUMMARY_FILE, StageContext
from mpo.stages.models import model_source, stage_tokenizer
from mpo.track.progress import ProgressWriter
from mpo.types import Response, ResponseSet

BATCHES = ".batches.jsonl"


def run(context: StageContext) -> None:
    """Write each split's prompts with freshly drawn responses. Stopped, it goes on after the last whole batch.

    Raises:
        DataError: more prompts than allowed are too long.
    """
    config = context.config
    how = context.section(SampleConfig, "sample")
    path, revision = model_source(context)
    tokenizer = stage_tokenizer(context)
    model = load_model(path, revision, how.precision, config["trust_remote_code"])
    model.to(join_group()).eval()
    stops = sorted({*config["stop_token_ids"], *stop_ids(tokenizer)})
    facts: dict[str, object] = {}
    progress = context.progress()
    for number, split in enumerate(config["splits"]):
        sets = list(read_stored_sets(context.inputs["prompts"] / f"{split}.parquet"))
        if split == "train" and config["rounds"] > 1:
            rounds = split_rounds([prompt_key(one.prompt) for one in sets], config["rounds"], config["seed_rounds"])
            sets = [sets[index] for index in rounds[config["round"] - 1]]
        asked = [(one, render_prompt(tokenizer, one.prompt)) for one in sets]
        asked = [(one, prompt) for one, prompt in asked if len(prompt) <= config["max_prompt_tokens"]]
        skipped = len(sets) - len(asked)
        _check_skipped(skipped, len(sets), split, config)
        asked = asked[: config["prompts"]]
        with _Batches(context.output / f"{split}{BATCHES}", partial(_show, progress, len(asked))) as batches:
            prompts, seed = [prompt for _, prompt in asked], config["seed"] * 1000 + number
            drawn = sample_responses(model, tokenizer, prompts, how, stops, seed, batches.drawn, batches.add)
        filled: list[ResponseSet] = []
        for (one, _), responses in zip(asked, drawn, strict=True):
            made = tuple(Response(text=each.text, finished=each.finished) for each in responses)
            filled.append(replace(one, responses=made))
        write_sets(context.output / f"{split}.parquet", filled)
        every = [each for responses in drawn for each in responses]
        facts[split] = {
            "sets": len(filled),
            "responses": len(every),
            "cut_at_limit": sum(not each.finished for each in every),
            "mean_characters": sum(len(each.text) for each in every) / max(len(every), 1),
            "skipped": {str(Reason.PROMPT_TOO_LONG): skipped} if skipped else {},
        }
    progress.close()
    write_json(context.output / SUMMARY_FILE, facts)
    for batches_file in context.output.glob(f"*{BATCHES}"):
        batches_file.unlink()


def _show(progress: ProgressWriter, total: int, done: int) -> None:
    progress.update(done, total, "prompts")


def _check_skipped(skipped: int, total: int, split: str, config: dict[str, Any]) -> None:
    """What tokenising would leave out need not be answered first."""
    if skipped > config["max_skipped_share"] * max(1, total) or (skipped and skipped == total):
        what = f"{skipped} of {total} {split} prompts are longer than {config['max_prompt_tokens']} tokens"
        raise DataError(what, "data.max_prompt_tokens", "raise it, or data.max_skipped_share")


class _Batches:
    """Batches on the disk, a line each, as they are drawn; a line that a kill has cut is drawn again."""

    def __init__(self, path: Path, on_done: Callable[[int], None]) -> None:
        self._on_done = on_done
        self.drawn: dict[int, list[list[Sampled]]] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            row = json.loads(line)
            self.drawn[row["batch"]] = [[Sampled(**each) for each in of_prompt] for of_prompt in row["responses"]]
        self._file = path.open("ab")
        self._file.truncate(len(whole))

    def add(self, number: int, responses: Sequence[Sequence[Sampled]], done: int) -> None:
        """Write a batch, to the disk itself; ``done`` prompts have their responses by now."""
        row = {"batch": number, "responses": [[asdict(each) for each in of_prompt] for of_prompt in responses]}
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._on_done(done)

    def __enter__(self) -> _Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
