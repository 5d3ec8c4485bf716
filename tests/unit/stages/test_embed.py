"""Embeddings of responses by a tiny BERT, and the partition that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from mpo.cache.stage import File, Nothing
from mpo.config.schema import ScoreTransformConfig
from mpo.data.assignments import Assignments
from mpo.data.similarities import StoredSimilarities
from mpo.data.store import write_sets
from mpo.data.tokens import tokenize_sets
from mpo.errors import ConfigError, DataError, UserError
from mpo.score.encoder import load_encoder
from mpo.stages import embed, partition
from mpo.stages.context import StageContext
from mpo.stages.nodes import embed as node
from mpo.stages.nodes import partition as partition_node
from mpo.stages.summary import Summary
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, Response, ResponseSet

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", ";", "the", "bee", "sees", "rose", "tree", "likes", "fence", "garden"]
LONG = " ".join(["bee"] * 40)
TEXTS = ("the bee sees the rose .", "the tree likes the fence .", "the bee sees the rose .", LONG, "")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved with a language model's head and without a pooler, as many encoders on the hub are."""
    folder = tmp_path_factory.mktemp("encoder")
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=len(WORDS), num_attention_heads=2, max_position_embeddings=32, **size)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def sets(split: str) -> list[ResponseSet]:
    """Of each, the first response is the best and the last the worst."""
    texts = (*TEXTS[:4], "rose ;")
    responses = tuple(Response(text, score=9.0 - number) for number, text in enumerate(texts))
    return [ResponseSet(f"{split}-{number}", (Message("user", "write"),), responses) for number in range(3)]


def run(tmp_path: Path, encoder: Path) -> Path:
    out = tmp_path / "embed"
    for folder in (tmp_path / "sets", out):
        folder.mkdir()
    for split in ("train", "heldout"):
        write_sets(tmp_path / "sets" / f"{split}.parquet", sets(split))
    embed.run(StageContext("embed", Nothing(), Nothing(), node.Inputs(tmp_path / "sets", File(str(encoder))), out))
    return out


def test_an_embedding_is_the_mean_of_the_last_hidden_states(encoder: Path) -> None:
    found_ND, cut = load_encoder(str(encoder), None).embed(TEXTS)
    model, tokenizer = AutoModel.from_pretrained(encoder).eval(), AutoTokenizer.from_pretrained(encoder)
    for text, vector_D in zip(TEXTS, found_ND, strict=True):
        ids = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            mean_D = model(input_ids=ids).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector_D, (mean_D / mean_D.norm()).numpy(), atol=1e-6)
    assert found_ND.dtype == np.float32 and cut == {3}


def test_similarities_are_kept_for_each_set_and_cut_texts_counted(tmp_path: Path, encoder: Path) -> None:
    out = run(tmp_path, encoder)
    stored = StoredSimilarities.load(out / "heldout")
    matrix = np.array(stored.of("heldout-2"))
    np.testing.assert_allclose(matrix.diagonal(), 1.0, atol=1e-6)
    assert matrix.shape == (5, 5) and (matrix == matrix.T).all()
    assert (matrix[0] == matrix[2]).all() and matrix[0, 1] < 0.999  # of equal texts all is equal
    summary = Summary.read(out)
    assert summary.warnings == {split: {embed.CUT: 3} for split in ("train", "heldout")}
    assert summary.facts["train"] == {"sets": 3, "responses": 15}
    with pytest.raises(DataError, match="set other: its responses have no embeddings"):
        stored.of("other")


def test_the_partition_stage_reads_them(tmp_path: Path, encoder: Path) -> None:
    build_tokenizer(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    for split in ("train", "heldout"):
        tokenize_sets(
            sets(split)[1:], tokenizer, max_prompt_tokens=60, max_tokens=99, out=tmp_path / "prepare" / split,
            processes=1, on_problem=lambda problem: None,
        )  # fmt: skip
    chosen = {"_target_": "mpo.partition.BestVsClusters", "path": str(encoder), "k": 3}
    config = partition_node.Config(
        chosen, "data", "data", ScoreTransformConfig(), seed=0, contrasts=True, needs_scores=True, needs_sides=True,
        score_range=None, max_skipped_share=0.0, allow_targets=[],
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    inputs = partition_node.Inputs(tmp_path / "prepare", run(tmp_path, encoder))
    partition.run(StageContext("partition", config, Nothing(), inputs, tmp_path / "out"))
    found = Assignments.load(tmp_path / "out" / "train")
    bins = found.bins(0)
    assert len(found) == 2 and bins == found.bins(1)
    assert bins[0] == 0 and bins[-1] == 1 and bins.count(1) == 3 and bins.count(-1) == 1


def test_an_encoder_without_all_its_weights_is_refused(tmp_path: Path, encoder: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in encoder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(encoder / "model.safetensors")
    save_file({name: w for name, w in weights.items() if "layer.1" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"partition.path: .* lacks encoder.layer.1"):
        load_encoder(str(tmp_path), None)


def test_an_encoder_that_lacks_ids_of_its_tokenizer_is_refused(encoder: Path) -> None:
    made = load_encoder(str(encoder), None)
    made.model.resize_token_embeddings(5)
    with pytest.raises(ConfigError, match="its tokenizer gives id 13, but it has embeddings for 5"):
        made.embed(["garden ."])
