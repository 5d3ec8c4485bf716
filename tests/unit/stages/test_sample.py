"""The sampling stage: prompts that are too long are left out before they are answered; a cut batch is drawn again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mpo.cache.stage import File, Nothing
from mpo.config.schema import SampleConfig
from mpo.data.store import read_stored_sets, write_sets
from mpo.errors import DataError
from mpo.sample.drawn import DrawnBatches
from mpo.sample.hf import Sampled
from mpo.stages import sample
from mpo.stages.context import StageContext
from mpo.stages.nodes import sample as node
from mpo.stages.summary import Summary
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, ResponseSet


def run(tmp_path: Path, share: float, before_template: str = "", n: int = 2) -> Path:
    build_tokenizer(tmp_path / "policy")
    template = tmp_path / "policy" / "chat_template.jinja"
    template.write_text(before_template + template.read_text())
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=111, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "policy")
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    texts = ["write garden", "write " + "garden " * 40, "garden"]
    write_sets(
        prompts / "train.parquet", [ResponseSet(str(i), (Message("user", text),), ()) for i, text in enumerate(texts)]
    )
    config = node.Config(
        SampleConfig(n=n, max_new_tokens=4), seed=0, splits=["train"], round=1, rounds=1, seed_rounds=0, prompts=None,
        stop_token_ids=[], max_prompt_tokens=20, max_skipped_share=share, chat_template=None, trust_remote_code=False,
    )  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    inputs = node.Inputs(prompts, File(str(tmp_path / "policy")))
    sample.run(StageContext("sample", config, Nothing(), inputs, out))
    return out


def test_prompts_above_the_limit_are_counted_not_answered(tmp_path: Path) -> None:
    out = run(tmp_path, 0.5)
    drawn = list(read_stored_sets(out / "train.parquet"))
    assert [one.id for one in drawn] == ["0", "2"] and all(len(one.responses) == 2 for one in drawn)
    summary = Summary.read(out)
    assert summary.skipped["train"] == {"prompt_too_long": 1} and summary.fact("sets", "train") == 2
    assert not list(out.glob("*.batches.jsonl"))


def test_special_tokens_inside_responses_are_counted_and_said(tmp_path: Path) -> None:
    out = run(tmp_path, 0.5, n=60)  # an untrained policy draws any token
    facts = Summary.read(out).facts["train"]
    said = (out / "warnings.txt").read_text()
    assert 0 < facts["with_special_tokens"] < facts["responses"] == 120
    assert said.startswith(f"{facts['with_special_tokens']} of 120 responses sampled for train have special tokens")


def test_too_many_of_them_stop_the_run_before_it_samples(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"set 1: train: the prompt has \d+ tokens, .* \(1 of 3 sets cannot be used: prompt_too_long 1\)",
    ):
        run(tmp_path, 0.1)


def test_prompts_that_the_template_refuses_are_counted_too(tmp_path: Path) -> None:
    refusing = "{% if messages[0].content == 'garden' %}{{ raise_exception('no gardens') }}{% endif %}"
    out = run(tmp_path, 0.7, refusing)
    assert [one.id for one in read_stored_sets(out / "train.parquet")] == ["0"]
    assert Summary.read(out).skipped["train"] == {"prompt_too_long": 1, "template_refused": 1}
    with pytest.raises(DataError, match=r"2 of 3 sets cannot be used: .*template_refused 1"):
        run(tmp_path / "again", 0.5, refusing)


def test_a_batch_that_a_kill_has_cut_is_drawn_again(tmp_path: Path) -> None:
    path, done = tmp_path / "train.batches.jsonl", []
    first, second = [[Sampled("a b", True)]], [[Sampled("c", False)]]
    with DrawnBatches(path, done.append) as batches:
        batches.add_batch(0, first, 1)
        batches.add_batch(1, second, 2)
    path.write_bytes(path.read_bytes()[:-9])
    with DrawnBatches(path, done.append) as batches:
        assert batches.drawn == {0: first}
        batches.add_batch(1, second, 2)
    with DrawnBatches(path, done.append) as batches:
        assert batches.drawn == {0: first, 1: second} and done == [1, 2, 2]


def test_a_damaged_batch_alone_is_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "train.batches.jsonl"
    batch = [[Sampled("a b", True)]]
    with DrawnBatches(path, lambda done: None) as batches:
        for number in range(3):
            batches.add_batch(number, batch, number)
    path.write_bytes(path.read_bytes().replace(b"a b", b"a c", 1))
    with DrawnBatches(path, lambda done: None) as batches:
        assert batches.damaged == 1 and batches.drawn == {1: batch, 2: batch}
        batches.add_batch(0, batch, 3)
    with DrawnBatches(path, lambda done: None) as batches:
        assert batches.damaged == 0 and batches.drawn == {0: batch, 1: batch, 2: batch}
