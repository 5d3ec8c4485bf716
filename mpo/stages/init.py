"""A model from scratch: a tokenizer and random weights, as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from mpo.cache.stage import Nothing
from mpo.config.targets import build
from mpo.data.sources.base import Source
from mpo.data.store import read_stored_sets
from mpo.data.tokenizer import load_tokenizer, train_tokenizer
from mpo.stages.context import StageContext
from mpo.stages.models import POLICY_FOLDER
from mpo.stages.nodes import init
from mpo.stages.scratch import scratch_config, scratch_model
from mpo.stages.summary import Summary


def run(context: StageContext[init.Config, Nothing, init.Inputs[Path]]) -> None:
    """Write ``policy/`` with weights drawn from the config's seed.

    Raises:
        ConfigError: transformers cannot make a model of that architecture.
    """
    config, folder = context.config, context.output / POLICY_FOLDER
    if config.source is not None:
        build(config.source, Source, config.allow_targets, "data.source").save_tokenizer(folder)  # type: ignore[type-abstract]
    else:
        assert config.vocab_size is not None
        train_tokenizer(_texts(context.inputs.sets / "train.parquet"), config.vocab_size, folder)
    tokenizer = load_tokenizer(str(folder), None)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(config.seed)
    model = scratch_model(scratch_config(config.architecture, vocab_size=len(tokenizer), **special))
    model.save_pretrained(folder)
    facts = {"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}
    Summary(facts={"": facts}).write(context.output)


def _texts(path: Path) -> Iterator[str]:
    for one in read_stored_sets(path):
        for turn in (*one.prompt, *(response.message for response in one.responses)):
            yield from turn.texts
        if one.tools is not None:
            yield one.tools
