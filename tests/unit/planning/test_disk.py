"""Disk: checkpoints, exports and the cache of a run, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from mpo.config.training import LoraConfig, Precision
from mpo.planning.data_size import DataSize
from mpo.planning.disk import checkpoint_bytes, export_bytes, run_disk
from mpo.planning.sizes import read_architecture
from tests.unit.planning.shapes import LLAMA3_8B, PAPER, TESTBED, P


def test_disk_by_hand() -> None:
    data = DataSize(sets=1000, responses=4, prompt_tokens=10, response_tokens=20)
    disk = run_disk(
        LLAMA3_8B,
        PAPER,
        data,
        processes=8,
        rounds=3,
        keeps_states=False,
        needs_reference=True,
        downloads_model=True,
        downloads_data=False,
    )
    assert disk.tokens == 3 * 90_000 * 4 and disk.reference == 3 * 80_000 * 4
    assert disk.checkpoints == 3 * 12 * P and disk.export == 3 * 2 * P and disk.download == 2 * P
    parts = (disk.tokens, disk.reference, disk.texts, disk.checkpoints, disk.export, disk.download)
    assert disk.cache + disk.download == sum(parts)
    free = run_disk(
        LLAMA3_8B,
        PAPER,
        data,
        processes=8,
        rounds=1,
        keeps_states=False,
        needs_reference=False,
        downloads_model=False,
        downloads_data=True,
    )
    assert free.reference == 0 and free.download == 90_000 * 5
    best = run_disk(
        LLAMA3_8B,
        replace(PAPER, keep_best="heldout/loss"),
        data,
        processes=8,
        rounds=2,
        keeps_states=True,
        needs_reference=False,
        downloads_model=False,
        downloads_data=True,
    )
    assert best.checkpoints == (3 + 4 + 1) * 12 * P


def test_a_checkpoint_is_as_large_as_the_states_it_holds(tmp_path: Path) -> None:
    assert checkpoint_bytes(LLAMA3_8B, TESTBED, 8) == 12 * P
    assert checkpoint_bytes(LLAMA3_8B, replace(TESTBED, zero_stage=1), 8) == 16 * P
    assert checkpoint_bytes(LLAMA3_8B, PAPER, 8) == 12 * P and checkpoint_bytes(LLAMA3_8B, PAPER, 1) == 14 * P
    assert checkpoint_bytes(LLAMA3_8B, replace(PAPER, lora=LoraConfig()), 8) < P
    config = LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    estimate = export_bytes(read_architecture(config.to_dict()), Precision.fp32)
    assert 1.0 <= (tmp_path / "model.safetensors").stat().st_size / estimate < 1.1
