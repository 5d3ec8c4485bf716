"""Token ids that a model has no embedding for are refused with both sizes, from its config.json alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaConfig

from mpo.cache.stage import File
from mpo.data.tokenizer import load_tokenizer
from mpo.errors import ConfigError
from mpo.stages.models import check_ids
from mpo.testbed.tokenizer import build_tokenizer


def test_ids_beyond_the_embedding_are_refused(tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    known = len(tokenizer)
    LlamaConfig(vocab_size=known).save_pretrained(tmp_path)  # no weights: none are read
    tokenizer.add_tokens(["<tool>"])
    model = File(str(tmp_path))
    check_ids(model, False, known - 1, tokenizer)  # what no text uses may be there
    expected = f"has {known + 1} ids, and the texts use {known}, but the model has embeddings for {known}; use"
    with pytest.raises(ConfigError, match=expected):
        check_ids(model, False, known, tokenizer)
