"""Sampling and scoring by several processes side by side: what one process draws and scores, each of it once."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mpo.cache.stage import File, Nothing
from mpo.config.schema import LauncherConfig, SampleConfig
from mpo.data.store import write_sets
from mpo.errors import UserError
from mpo.pipeline.launch import run_group
from mpo.score import Item, Scorer
from mpo.stages import sample, score
from mpo.stages.context import StageContext
from mpo.stages.nodes import sample as sample_node
from mpo.stages.nodes import score as score_node
from mpo.stages.summary import Summary
from mpo.testbed.tokenizer import build_tokenizer
from mpo.types import Message, ResponseSet

TWO = LauncherConfig(processes=2, threads=1)
PROMPTS = 80


@dataclass(frozen=True)
class Length(Scorer):
    """Characters of a response; ``spoil``: of the text that it cannot score."""

    log: str = ""
    spoil: str | None = None
    replicated: ClassVar[bool] = True

    def score(self, items: Sequence[Item]) -> list[float]:
        import os

        with open(f"{self.log}.{os.getpid()}", "a") as file:
            file.writelines(f"{'RANK' in os.environ} {item.prompt[0].content}\n" for item in items)
        texts = [item.response.content for item in items]
        if self.spoil in texts:
            raise ValueError("cannot score this")
        return [float(len(text)) for text in texts]

    def take_warnings(self) -> dict[str, int]:
        return {"looked at": 1}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``prompts`` and a tiny ``policy``."""
    folder = tmp_path_factory.mktemp("inputs")
    build_tokenizer(folder / "policy")
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=111, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(folder / "policy")
    (folder / "prompts").mkdir()
    sets = [
        ResponseSet(str(i), (Message("user", f"write {i % 7 + 1} sentences about garden"),), ()) for i in range(PROMPTS)
    ]
    for split in ("train", "heldout"):
        write_sets(folder / "prompts" / f"{split}.parquet", sets)
    return folder


def sampling(inputs: Path, out: Path) -> StageContext[Any, Any, Any]:
    config = sample_node.Config(
        {"_target_": "mpo.sample.HFSampler", "batch": 12}, SampleConfig(n=3, max_new_tokens=6), seed=0,
        splits=["train", "heldout"], round=1, rounds=1, seed_rounds=0, prompts=None, allow_targets=[],
        stop_token_ids=[], max_prompt_tokens=20, max_skipped_share=0.0, chat_template=None, trust_remote_code=False,
    )  # fmt: skip
    out.mkdir(exist_ok=True)
    return StageContext(
        "sample", config, Nothing(), sample_node.Inputs(inputs / "prompts", File(str(inputs / "policy"))), out
    )


def scoring(sets: Path, out: Path, **options: str) -> StageContext[Any, Any, Any]:
    node = {"_target_": f"{__name__}.Length", **options}
    config = score_node.Config({"length": node}, {"length": node}, [__name__.partition(".")[0]])
    out.mkdir(exist_ok=True)
    return StageContext("score", config, score_node.Settings(), score_node.Inputs(sets), out)


def launch(context: StageContext[Any, Any, Any], launcher: LauncherConfig = TWO) -> None:
    context.write()
    run_group(context, launcher, True, context.output.name)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".parquet"}


def test_two_processes_draw_and_score_what_one_does(inputs: Path, tmp_path: Path) -> None:
    sample.run(sampling(inputs, tmp_path / "drawn-1"))
    launch(sampling(inputs, tmp_path / "drawn-2"))
    assert files(tmp_path / "drawn-2") == files(tmp_path / "drawn-1")
    assert not list((tmp_path / "drawn-2").glob("*.batches.*"))
    assert Summary.read(tmp_path / "drawn-2").fact("responses", "train") == 3 * PROMPTS

    score.run(scoring(tmp_path / "drawn-1", tmp_path / "scored-1", log=str(tmp_path / "alone")))
    launch(scoring(tmp_path / "drawn-1", tmp_path / "scored-2", log=str(tmp_path / "both")))
    assert files(tmp_path / "scored-2") == files(tmp_path / "scored-1")
    assert (tmp_path / "scored-2" / "summary.json").read_text() == (tmp_path / "scored-1" / "summary.json").read_text()
    seen = [line.split(maxsplit=1) for path in tmp_path.glob("both.*") for line in path.read_text().splitlines()]
    assert len(seen) == 2 * 3 * PROMPTS  # each once
    assert len(list(tmp_path.glob("both.*"))) == 2
    assert {of_a_group for of_a_group, _ in seen} == {"False"}  # no library may wait for the other process


@pytest.mark.slow
def test_two_machines_draw_what_one_does(inputs: Path, tmp_path: Path) -> None:
    """Both on loopback: two agents that meet, each with one process, and one folder for both."""
    sample.run(sampling(inputs, tmp_path / "drawn-1"))
    with socket.socket() as free:
        free.bind(("", 0))
        rendezvous = f"{socket.gethostname()}:{free.getsockname()[1]}"
    context = sampling(inputs, tmp_path / "drawn-2")
    machines = [LauncherConfig(nodes=2, node_rank=rank, rendezvous=rendezvous, threads=1) for rank in (0, 1)]
    other = multiprocessing.get_context("spawn").Process(target=launch, args=(context, machines[1]))
    other.start()
    launch(context, machines[0])
    other.join(60)
    assert other.exitcode == 0
    assert files(tmp_path / "drawn-2") == files(tmp_path / "drawn-1")
    logs = [path for path in (tmp_path / "drawn-2" / "logs").rglob("stdout.log")]
    assert len({path.parts[-4] for path in logs}) == 2  # an agent each


def test_a_mistake_in_one_process_ends_both_with_its_line(inputs: Path, tmp_path: Path) -> None:
    sample.run(sampling(inputs, tmp_path / "drawn"))
    texts = (
        each.text for one in sample.read_stored_sets(tmp_path / "drawn" / "train.parquet") for each in one.responses
    )
    with pytest.raises(UserError, match="Length raised ValueError: cannot score this"):
        launch(scoring(tmp_path / "drawn", tmp_path / "scored", log=str(tmp_path / "log"), spoil=next(texts)))
