"""Processes that forward a row together: one loss curve with a process alone, attention of every kind, resume."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from mpo.layout.batch import collate
from mpo.policy import attention as back_ends
from mpo.policy.attention import DenseAttend, KeptPrompt
from mpo.policy.attention.interface import shared_prefix_attention
from mpo.policy.module import PolicyModule
from mpo.policy.sequence_parallel import SequenceShares
from mpo.train.zero import init_process_group, sequence_shares
from tests.distributed.world import TokenSet, TokenSets, curve, run_processes, spawn, tiny_policy, weights
from tests.families import FAMILIES, logps_and_gradients, model

PIECES = {"micro_tokens": 9}
"""A process alone forwards most sets in pieces, two together those above 18 tokens."""
PATHS: dict[str, dict[str, Any]] = {
    "mpo": {},
    "kto": {"loss": "kto"},
    "wpo": {"loss": "wpo"},
    "lora": {"lora": True},
    "answers": {"answers_alone": True},
    "heldout": {"heldout": 9, "config": {"evaluate_every": 2}},
}


def job(out: Path, stage: int = 2, **more: Any) -> dict[str, Any]:
    config = {"zero_stage": stage, "micro_batch": 4, "global_batch": 5, "lr": 3e-3, "warmup_ratio": 0.0, "max_steps": 3}
    return {"out": str(out), "loss_fields": {"beta": 0.1}} | more | {"config": config | more.get("config", {})}


def with_config(job: dict[str, Any], **config: Any) -> dict[str, Any]:
    return job | {"config": job["config"] | config}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every path in a process alone, and in two and four that forward together."""
    folder = tmp_path_factory.mktemp("sequence")
    alone = [job(folder / f"{name}-1", **path) for name, path in PATHS.items()]
    bf16 = {"precision": "bf16", "max_steps": 2}
    assert spawn([*alone, job(folder / "bf16-1", config=bf16)]) == [0]
    together = {"sequence_parallel": 2}
    two = [with_config(job(folder / f"{name}-2", **path), **together) for name, path in PATHS.items()]
    two += [with_config(job(folder / f"{name}-2-pieces", **path), **together, **PIECES) for name, path in PATHS.items()]
    two += [job(folder / "mpo-2-zero0", 0, config=together), job(folder / "bf16-2", config=bf16 | together)]
    again = together | PIECES | {"activation_checkpointing": True}
    two += [job(folder / "mpo-2-zero3-pieces-again", 3, config=again)]
    assert spawn(two, 2) == [0, 0]
    four = [job(folder / f"mpo-4-of-{size}", config={"sequence_parallel": size}) for size in (2, 4)]
    four += [job(folder / "mpo-4-of-4-pieces", 3, config={"sequence_parallel": 4, "micro_tokens": 4})]
    assert spawn(four, 4) == [0] * 4
    return folder


@pytest.mark.parametrize("name", PATHS)
def test_one_curve_and_one_policy(trained: Path, name: str) -> None:
    expected, policy = curve(trained / f"{name}-1"), weights(trained / f"{name}-1")
    assert len(expected) == 3
    others = sorted(trained.glob(f"{name}-[24]*"))
    assert len(others) == (7 if name == "mpo" else 2)
    for other in others:
        torch.testing.assert_close(curve(other), expected, rtol=2e-6, atol=0.0)
        for key in ("grad_norm", "response_length", "logps/chosen"):
            torch.testing.assert_close(curve(other, key), curve(trained / f"{name}-1", key), rtol=2e-6, atol=0.0)
        found = weights(other)
        for part in policy:
            torch.testing.assert_close(found[part], policy[part], rtol=0.0, atol=2e-5)


def test_held_out_sets_are_evaluated_alike(trained: Path) -> None:
    for key in ("heldout/loss", "heldout/accuracy", "heldout/margin", "heldout/kl"):
        alone, together, pieces = (curve_of_step(trained / f"heldout-{name}", key) for name in ("1", "2", "2-pieces"))
        torch.testing.assert_close(torch.tensor([together, pieces]), torch.tensor([alone, alone]), rtol=1e-4, atol=1e-7)


def curve_of_step(out: Path, key: str) -> float:
    """The metric of the last step."""
    return float(json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])[key])


def test_bfloat16_rounds_no_more_than_alone(trained: Path) -> None:
    for key in ("loss", "grad_norm"):
        torch.testing.assert_close(curve(trained / "bf16-2", key), curve(trained / "bf16-1", key), rtol=1e-2, atol=0.0)


def test_training_goes_on_alike_with_other_groups(tmp_path: Path) -> None:
    """A checkpoint says nothing of who forwards with whom."""
    whole, broken = job(tmp_path / "whole"), job(tmp_path / "broken", config={"sequence_parallel": 2})
    assert spawn([whole], 2) == [0, 0]
    assert spawn([broken | {"stop_at": 2}], 2) == [143, 143]
    assert spawn([with_config(broken, sequence_parallel=1)], 2) == [0, 0]
    torch.testing.assert_close(curve(tmp_path / "broken"), curve(tmp_path / "whole"), rtol=2e-6, atol=0.0)
    assert curve(tmp_path / "broken", "step") == [1, 2, 3]


def attention(tensors: list[Tensor], after: bool, shares: SequenceShares, more: dict[str, Any]) -> list[Tensor]:
    """This process's tokens of attention's output for whole rows ``[1,H,N,D]``, and gradients of the whole sum."""
    sets = TokenSets(1)
    batch = collate([sets[0]])
    batch = batch.after_prompt() if after else batch
    rows = tensors[0].shape[2]
    batch = batch.filled(batch.skipped + rows)
    layer, prompt = nn.Identity(), KeptPrompt(batch.skipped)
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    mine = [shares.share(leaf.transpose(0, 2)).transpose(0, 2) for leaf in leaves[:3]]
    sinks = leaves[3] if len(leaves) > 3 else None
    if after:
        draw = torch.Generator().manual_seed(1)
        kept = torch.randn(2, batch.skipped, *tensors[1].shape[1::2], generator=draw)
        for name, values in zip(("key", "value"), kept, strict=True):
            mine_of = values if shares.size == 1 else kept_heads(values, shares)
            prompt._values[(layer, name)] = mine_of
    across = prompt.across(batch) if after else None
    out, _ = shared_prefix_attention(
        layer, *mine, None, None, DenseAttend(batch), across, None, shares, s_aux=sinks, **more
    )
    weight = torch.linspace(-1, 1, rows)[:, None, None]
    (out[0] * shares.share(weight)).sum().backward()
    return [out[0].detach(), *(leaf.grad for leaf in leaves)]


def kept_heads(values: Tensor, shares: SequenceShares) -> Tensor:
    """This process's heads of keys ``[P,G,D]``."""
    times = max(1, shares.size // values.shape[1])
    return shares.share(values.repeat_interleave(times, dim=1).transpose(0, 1)).transpose(0, 1)


def compare_attention(folder: Path, environment: dict[str, str]) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    init_process_group()
    shares = sequence_shares(dist.get_world_size())
    for heads, keys in ((4, 4), (4, 2), (4, 1), (8, 2)):
        for after in (False, True):
            for more in ({}, {"sliding_window": 5}, {"softcap": 2.0}, {"s_aux": True}):
                draw = torch.Generator().manual_seed(0)
                random = partial(torch.randn, generator=draw)
                tensors = [random(1, heads, 64, 6), random(1, keys, 64, 6), random(1, keys, 64, 6)]
                tensors += [random(heads)] if "s_aux" in more else []
                options = {name: value for name, value in more.items() if name != "s_aux"}
                expected = attention(tensors, after, SequenceShares(), options)
                found = attention(tensors, after, shares, options)
                torch.testing.assert_close(found[0], shares.share(expected[0]), rtol=1e-5, atol=1e-6)
                for one, whole in zip(found[1:], expected[1:], strict=True):
                    dist.all_reduce(one)  # each process has the gradient of its tokens, or of its heads' sinks
                    torch.testing.assert_close(one, whole, rtol=1e-4, atol=1e-5)
    (folder / f"passed-{dist.get_rank()}").touch()
    dist.destroy_process_group()


def compare_families(folder: Path, environment: dict[str, str]) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    init_process_group()
    shares = sequence_shares(dist.get_world_size())
    for family in FAMILIES:
        lm = model(family)
        lm.set_attn_implementation(back_ends.NAME)
        policy = PolicyModule(lm)
        expected_BKT, expected = logps_and_gradients(policy)
        policy.zero_grad()
        policy.sequence = shares
        logps_BKT, found = logps_and_gradients(policy)
        torch.testing.assert_close(logps_BKT, expected_BKT, rtol=1e-5, atol=1e-5, msg=(family + ": {}").format)
        for name, gradient in expected.items():
            whole = found.get(name, torch.zeros_like(gradient))
            dist.all_reduce(whole)
            torch.testing.assert_close(whole, gradient, rtol=1e-4, atol=1e-5, msg=(family + ": {}").format)
        if dist.get_rank() == 0:
            (folder / family).touch()
    dist.destroy_process_group()


def test_every_family_that_shares_prompts(tmp_path: Path) -> None:
    """Log-probs, and gradients summed over two processes."""
    assert run_processes(compare_families, tmp_path, 2) == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == set(FAMILIES)


def kept_for_backward(policy: PolicyModule) -> int:
    """Bytes that a forward pass of a row of 900 tokens keeps, weights left out."""
    tokens = TokenSet("long", np.ones(300, np.int32), [np.ones(200, np.int32)] * 3, [1.0, 2.0, 3.0], [], [])
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logps = policy(collate([tokens])).logps_BK
        found = sum(kept.values())
        logps.sum().backward()
    return found


def compare_kept(folder: Path, environment: dict[str, str]) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    init_process_group()
    policy = tiny_policy()
    alone = kept_for_backward(policy)
    policy.sequence = sequence_shares(dist.get_world_size())
    (folder / f"share-{dist.get_rank()}").write_text(str(kept_for_backward(policy) / alone))
    dist.destroy_process_group()


def test_each_process_keeps_its_share_of_a_row(tmp_path: Path) -> None:
    """What lets a row be longer than one of them has memory for."""
    assert run_processes(compare_kept, tmp_path, 2) == [0, 0]
    for rank in (0, 1):
        assert 0.45 < float((tmp_path / f"share-{rank}").read_text()) < 0.55


@pytest.mark.parametrize("processes", [2, 4])
def test_attention_of_every_kind(tmp_path: Path, processes: int) -> None:
    """Several query heads on a key's, keys that processes share, windows, caps, sinks, after a kept prompt."""
    assert run_processes(compare_attention, tmp_path, processes) == [0] * processes
    assert len(list(tmp_path.glob("passed-*"))) == processes
