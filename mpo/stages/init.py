"""A model from scratch: a tokenizer and random weights, as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from mpo.cache.artifacts import write_json
from mpo.data.store import read_stored_sets
from mpo.data.tokenizer import load_tokenizer, train_tokenizer
from mpo.stages.context import SUMMARY_FILE, StageContext
from mpo.stages.models import POLICY_FOLDER
from mpo.stages.scratch import scratch_config, scratch_model
from mpo.testbed.tokenizer import build_tokenizer


def run(context: StageContext) -> None:
    """Write ``policy/`` with weights drawn from the config's seed.

    Raises:
        ConfigError: transformers cannot make a model of that architecture.
    """
    config, folder = context.config, context.output / POLICY_FOLDER
    if config["tokenizer"] == "testbed":
        build_tokenizer(folder)
    else:
        train_tokenizer(_texts(context.inputs["sets"] / "train.parquet"), config["vocab_size"], folder)
    tokenizer = load_tokenizer(str(folder), None)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(config["seed"])
    model = scratch_model(scratch_config(config["architecture"], vocab_size=len(tokenizer), **special))
    model.save_pretrained(folder)
    write_json(context.output / SUMMARY_FILE, {"parameters": model.num_parameters(), "vocabulary": len(tokenizer)})


def _texts(path: Path) -> Iterator[str]:
    for one in read_stored_sets(path):
        for turn in (*one.prompt, *(response.message for response in one.responses)):
            yield from turn.texts
        if one.tools is not None:
            yield one.tools
