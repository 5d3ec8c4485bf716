"""Draw responses to the prompts of one round (``train``) and to the held-out ones (``heldout``)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mpo.artifacts import write_json
from mpo.config.schema import SampleConfig
from mpo.data.chat import render_prompt, stop_ids
from mpo.data.split import prompt_key, split_rounds
from mpo.data.store import read_stored_sets, write_sets
from mpo.logprobs.devices import join_group
from mpo.logprobs.load import load_model
from mpo.sample.hf import sample_responses
from mpo.stages.context import SUMMARY_FILE, StageContext
from mpo.stages.models import model_source, stage_tokenizer
from mpo.track.progress import ProgressWriter
from mpo.types import Response, ResponseSet


def run(context: StageContext) -> None:
    """Write each split's prompts with freshly drawn responses."""
    config = context.config
    how = context.section(SampleConfig, "sample")
    path, revision = model_source(context)
    tokenizer = stage_tokenizer(context)
    model = load_model(path, revision, how.precision, config["trust_remote_code"])
    model.to(join_group()).eval()
    facts: dict[str, object] = {}
    progress = context.progress()
    for number, split in enumerate(config["splits"]):
        sets = list(read_stored_sets(context.inputs["prompts"] / f"{split}.parquet"))
        if split == "train" and config["rounds"] > 1:
            rounds = split_rounds([prompt_key(one.prompt) for one in sets], config["rounds"], config["seed_rounds"])
            sets = [sets[index] for index in rounds[config["round"] - 1]]
        sets = sets[: config["prompts"]]
        prompts = [render_prompt(tokenizer, one.prompt) for one in sets]
        drawn = sample_responses(
            model,
            tokenizer,
            prompts,
            how,
            sorted({*config["stop_token_ids"], *stop_ids(tokenizer)}),
            config["seed"] * 1000 + number,
            partial(_show, progress, len(sets)),
        )
        filled: list[ResponseSet] = []
        for one, responses in zip(sets, drawn, strict=True):
            made = tuple(Response(text=each.text, finished=each.finished) for each in responses)
            filled.append(replace(one, responses=made))
        write_sets(context.output / f"{split}.parquet", filled)
        every = [each for responses in drawn for each in responses]
        facts[split] = {
            "sets": len(sets),
            "responses": len(every),
            "cut_at_limit": sum(not each.finished for each in every),
            "mean_characters": sum(len(each.text) for each in every) / max(len(every), 1),
        }
    progress.close()
    write_json(context.output / SUMMARY_FILE, facts)


def _show(progress: ProgressWriter, total: int, done: int) -> None:
    progress.update(done, total, "prompts")
